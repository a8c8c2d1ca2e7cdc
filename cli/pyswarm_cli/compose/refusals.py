"""Keys of Compose that pyswarm cannot carry out, each with why or what to do instead: none is ignored."""

from __future__ import annotations

_ONE_MACHINE = "it is for containers on one machine"
_SHARES = "a task shares nothing with its host or other containers"
_CGROUP = "use deploy.resources"
_BLOCK = "there is no such limit"

SERVICE: dict[str, str] = {
    "annotations": "use labels",
    "attach": "deploy does not show what containers print; use 'pyswarm service logs'",
    "blkio_config": _BLOCK,
    "build": "deploy builds nothing; use 'pyswarm image build' and 'pyswarm image push', and keep only the image",
    "cgroup": _SHARES,
    "cgroup_parent": _CGROUP,
    "configs": "this version has no configs; mount a file instead",
    "container_name": "a container is named after its task, web.1; use hostname for its own name",
    "cpu_count": _CGROUP,
    "cpu_percent": _CGROUP,
    "cpu_period": _CGROUP,
    "cpu_quota": _CGROUP,
    "cpu_rt_period": _CGROUP,
    "cpu_rt_runtime": _CGROUP,
    "cpu_shares": _CGROUP,
    "cpuset": _CGROUP,
    "credential_spec": "it is for Windows",
    "depends_on": "services are deployed one by one; let the service wait for what it needs",
    "develop": "it is for development on one machine",
    "device_cgroup_rules": "containers get no devices",
    "devices": "containers get no devices",
    "domainname": "use hostname",
    "extends": "use a YAML anchor and <<",
    "external_links": "services of one network reach each other by name",
    "gpus": "containers get no devices",
    "ipc": _SHARES,
    "isolation": "it is for Windows",
    "label_file": "write the labels here",
    "links": "services of one network reach each other by name",
    "mac_address": "the network gives addresses",
    "mem_swappiness": _CGROUP,
    "memswap_limit": _CGROUP,
    "models": "there are none here",
    "network_mode": "use networks",
    "oom_kill_disable": _CGROUP,
    "oom_score_adj": _CGROUP,
    "pid": _SHARES,
    "platform": "use deploy.placement.constraints, node.platform.arch==arm64",
    "post_start": "put it into the image's entrypoint",
    "pre_stop": "handle the stop signal in the container",
    "privileged": "use cap_add for what is needed",
    "profiles": "name the service that is to be deployed",
    "provider": "only containers are run",
    "pull_policy": "an image is pulled where it is missing, always by its digest",
    "runtime": "each node's agent chooses its runtime",
    "secrets": "this version has no secrets; mount a file instead",
    "security_opt": "the default seccomp profile and no_new_privs always hold",
    "shm_size": "mount a tmpfs with a size at /dev/shm",
    "stdin_open": "nobody could type there",
    "storage_opt": _BLOCK,
    "use_api_socket": "there is none",
    "userns_mode": _SHARES,
    "uts": _SHARES,
    "volumes_from": _ONE_MACHINE,
}

NETWORK: dict[str, str] = {
    "driver_opts": "networks have no options",
    "gw_priority": "the first network has the default route",
    "interface_name": "a task has one link, eth0",
    "ipv4_address": "the network gives addresses",
    "ipv6_address": "networks are IPv4",
    "link_local_ips": "the network gives addresses",
    "mac_address": "the network gives addresses",
    "priority": "the first network has the default route",
}

PORT: dict[str, str] = {
    "app_protocol": "ports are TCP or UDP, whatever is spoken on them",
    "host_ip": "a published port answers on every address of every host",
    "name": "ports have no names",
}
