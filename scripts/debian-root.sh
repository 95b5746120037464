# shellcheck shell=bash
# What fresh-root and test-systemd share: a minimal Debian in a folder, made by debootstrap and kept
# as a tarball, and a way to run commands in it with the package archives, pip's configuration and
# the certificates of this machine.

suite=${FRESH_ROOT_SUITE:-bookworm}
cache_dir=${XDG_CACHE_HOME:-/var/tmp}/harkd-fresh-root

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

need() {
  command -v "$1" >/dev/null || fail "$1 is missing: apt-get install $2"
}

# The host's package archives of this release: one "URI RELEASE COMPONENT" a line.
host_archives() {
  if command -v apt-get >/dev/null; then
    # shellcheck disable=SC2016  # the names in $() are apt's
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
      'Created-By: Packages' 2>/dev/null | sort -u |
      awk -v suite="$suite" '$2 == suite || $2 == suite "-updates" || $2 == suite "-security"'
  fi
}

make_base() {
  local tarball=$1 build mirror
  mirror=$(host_archives | awk -v suite="$suite" '$2 == suite && $3 == "main" {print $1; exit}')
  mkdir -p "$cache_dir"
  build=$(mktemp -d "$cache_dir/build.XXXXXX")
  # shellcheck disable=SC2064  # $build is local: expand it now
  trap "rm -rf '$build'" EXIT
  echo "making the base system, kept as $tarball" >&2
  # It mounts /proc and /sys there, which must be gone before anything deletes the folder.
  unshare --mount debootstrap --variant=minbase --include=python3 "$suite" "$build/root" \
    "${mirror:-http://deb.debian.org/debian}" >"$cache_dir/debootstrap.log" 2>&1 ||
    fail "debootstrap failed: see $cache_dir/debootstrap.log"
  # debootstrap copies these two from the host.
  : >"$build/root/etc/resolv.conf"
  echo raspberrypi >"$build/root/etc/hostname"
  rm -rf "$build/root/var/cache/apt/archives"/*.deb
  tar --create --gzip --numeric-owner --exclude='./dev/*' --file="$build/base.tar.gz" \
    --directory="$build/root" .
  mv "$build/base.tar.gz" "$tarball"
  rm -rf "$build"
  trap - EXIT
}

# Makes apt-get work in a root as it does on this machine.
prepare_root() {
  local root=$1 archives
  printf '127.0.0.1 localhost raspberrypi\n::1 localhost\n' >"$root/etc/hosts"
  # There is no init to start the daemons of packages with.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"

  archives=$(host_archives)
  if [[ -n $archives ]]; then
    awk '{print "deb", $0}' <<<"$archives" >"$root/etc/apt/sources.list"
    # The archive may be a proxied one, or a snapshot whose date has passed.
    apt-config dump | grep -E '^Acquire::(https?|Check-[A-Za-z-]+|Retries)\b' \
      >"$root/etc/apt/apt.conf.d/90host" || :
  fi
}

host_pip() {
  python3 -m pip "$@" 2>/dev/null || pip "$@" 2>/dev/null || :
}

# Names of the variables that the command gets from the host's environment.
passed_variables() {
  compgen -e | grep -E '^(PIP_.*|SSL_.*|.*_CA_.*|.*_(PROXY|proxy))$' || :
}

# The host's files and folders that the passed variables and pip's configuration name.
named_paths() {
  local name word
  {
    for name in $(passed_variables); do
      printf '%s\n' "${!name}"
    done
    host_pip config list | sed -E "s/^[^=]*='(.*)'$/\1/; s/\\\\n/ /g"
    host_pip config debug | sed -nE 's/^  (\/.*), exists: True$/\1/p'
    # Certificates of the host's own, which installing ca-certificates would otherwise lose.
    echo /usr/local/share/ca-certificates
  } | tr ' ' '\n' | while read -r word; do
    case $word in
      # The links of a file index point beside it, to ../../files.
      file:///*/simple | file:///*/simple/) word=$(dirname "${word#file://}") ;;
      file:///*) word=${word#file://} ;;
    esac
    # The whole folder, so that its files can be replaced: see mount_named.
    case $word in
      /etc/ssl/certs/*) word=/etc/ssl/certs ;;
    esac
    if [[ $word == /?* && -e $word ]]; then
      echo "${word%/}"
    fi
  done | sort -u
}

mount_named() {
  local root=$1 path target
  while read -r path; do
    target=$root/${path#/}
    if [[ $path == "$HOME"/* ]]; then
      target=$root/root${path#"$HOME"}
    fi
    if [[ $path == /etc/ssl/certs ]]; then
      # Writable, for the package ca-certificates rewrites it, and with its links followed, for
      # they point to files that the root has not.
      mkdir -p "$target"
      mount -t tmpfs -o mode=755 tmpfs "$target"
      cp -RL "$path/." "$target" 2>/dev/null || :
      continue
    fi
    if [[ -d $path ]]; then
      mkdir -p "$target"
    else
      mkdir -p "$(dirname "$target")"
      : >>"$target"
    fi
    mount --bind "$path" "$target"
    mount -o remount,bind,ro "$target"
  done
}

mount_system() {
  local root=$1 node
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
}

# Runs in mount and process namespaces of its own, which take the mounts and whatever the command
# left running with them when they end, however that comes about.
enter() {
  local root=$1 command=$2 name
  local -a variables=(
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    HOME=/root USER=root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "TERM=${TERM:-dumb}"
  )
  for name in $(passed_variables); do
    variables+=("$name=${!name}")
  done
  mount_named "$root" < <(named_paths)
  mount_system "$root"
  cd /
  exec chroot "$root" /usr/bin/env -i "${variables[@]}" /bin/bash -c "$command"
}
