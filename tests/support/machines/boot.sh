# Boots a Debian tree: runs in new net, mount, uts, ipc, pid and cgroup namespaces, and becomes systemd.
# $LOWER (overlay layers), $DISK (its folder; upper/ is the disk, data/ another one), $HOST_NAME, $SHARED (a folder that the
# host sees read-only as /srv/shared) and $HIERARCHIES (v1 mount options, or empty for cgroup v2) are given.
set -eu
mount --make-rprivate /
root=$DISK/root
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$DISK/upper,workdir=$DISK/work" "$root"
mkdir -p "$root/srv/data" "$root/srv/shared"
mount --bind "$DISK/data" "$root/srv/data"
mount --rbind "$SHARED" "$root/srv/shared"
mount -o remount,bind,ro "$root/srv/shared"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
if [ -n "$HIERARCHIES" ]; then
  mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
  for options in $HIERARCHIES; do
    name=${options#none,name=}
    mkdir -p "$root/sys/fs/cgroup/$name"
    mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$name"
  done
else
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
if [ -e /dev/fuse ]; then touch "$root/dev/fuse"; mount --bind /dev/fuse "$root/dev/fuse"; fi
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%%:*}" "$root/dev/${n#*:}"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
hostname "$HOST_NAME"
cd "$root"
mkdir -p .machine
pivot_root . .machine
echo ready
read -r _ # the cable is plugged in
# On v1 systemd would also mount the machine's own v2 hierarchy, and fill that.
exec chroot . /bin/sh -c 'umount -l /.machine && rmdir /.machine
  exec env -i container=other /sbin/init systemd.legacy_systemd_cgroup_controller=1' </dev/null >/dev/null 2>&1
