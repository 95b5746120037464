# shellcheck shell=sh
# What quickstart and test share: Debian packages and the virtual environment in .venv.

say() {
  printf '\n==> %s\n' "$*" >&2
}

# Installs the Debian packages of a list that are not there yet.
install_packages() {
  missing=""
  for package in $1; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
      missing="$missing $package"
    fi
  done
  if [ -z "$missing" ]; then
    return
  fi
  say "Installing Debian packages:$missing"
  as_root=""
  if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
    if ! command -v sudo >/dev/null; then
      say "This needs root once: install sudo, or run as root: apt-get install$missing"
      exit 1
    fi
  fi
  $as_root apt-get update -q
  # shellcheck disable=SC2086  # a list
  $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends $missing
}

# Unpacks Debian packages (a list) into a folder of .cache: for programs whose package would start a
# service here.
unpack_packages() {
  place=.cache/$1
  if [ -d "$place" ]; then
    return
  fi
  say "Unpacking Debian's $2 into $place"
  rm -rf "$place.new"
  mkdir -p "$place.new"
  (
    cd "$place.new" || exit 1
    # shellcheck disable=SC2086  # a list
    if ! apt-get download -q $2; then  # apt's lists are too old
      as_root=""
      if [ "$(id -u)" -ne 0 ]; then
        as_root=sudo
      fi
      $as_root apt-get update -q
      apt-get download -q $2
    fi
    for package in *.deb; do
      dpkg-deb -x "$package" .
    done
    rm ./*.deb
  )
  mv "$place.new" "$place"
}

# Installs harkd with these extras into .venv.
make_environment() {
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "harkd needs Python 3.11 or newer; this is $(python3 --version)."
    exit 1
  fi
  say "Installing harkd and its Python packages into .venv (some minutes on a Pi)"
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # none, or a half-made one
    python3 -m venv --clear .venv
  fi
  options=${2:-}
  # shellcheck disable=SC2086  # options
  .venv/bin/python -m pip install -q --disable-pip-version-check $options "$1"
}
