# The first process of a lab host. Runs in new net, mount, uts, ipc, pid and cgroup namespaces; $HOST_DIR $HOST_NAME and
# $HIERARCHIES (v1 mount options, or empty for cgroup v2) are given. It restarts nothing: it only reaps.
set -eu
mount --make-rprivate /
hostname "$HOST_NAME"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
if [ -n "$HIERARCHIES" ]; then
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  for options in $HIERARCHIES; do
    name=${options#none,name=}
    mkdir -p "/sys/fs/cgroup/$name"
    mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/$name"
  done
else
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir -p /sys/fs/cgroup/daemons
  echo $$ > /sys/fs/cgroup/daemons/cgroup.procs
fi
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$HOST_DIR/etc,workdir=$HOST_DIR/etc-work" /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/lock /run/pyswarm
# A boot of its own, as a machine's.
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mkdir -p /var/lib/pyswarm
mount --bind "$HOST_DIR/data" /var/lib/pyswarm
echo ready
exec catatonit -P >/dev/null 2>&1 </dev/null
