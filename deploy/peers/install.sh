#!/bin/sh
# Installs the real peers that the tests talk to, on Debian 12 or later:
#
#   rsyslog with RELP and TLS, chromium with its driver, kcat,
#   docker-compose (checks the compose file, needs no engine)      as packages
#   syslog-ng-core, with the libraries it needs                    unpacked aside, into
#                                                                  ${TOCSIN_CACHE:-$HOME/.cache/tocsin}/syslog-ng
#   an S3-compatible store (MinIO), if there is go                 built from its module, a few minutes the first time,
#                                                                  into the same cache (deploy/s3/store.py)
#
# syslog-ng-core and rsyslog conflict as packages (both want to be the system's log daemon), hence the second way.
# To run it: the script syslog-ng in that folder. Nothing is started, nothing is configured.
#
# May run any number of times, and is quick when all is there. Prints one line for each thing it does.
set -eu

packages="rsyslog rsyslog-relp rsyslog-gnutls chromium chromium-driver kcat docker-compose"
cache="${TOCSIN_CACHE:-${HOME:?HOME is not set, and neither is TOCSIN_CACHE}/.cache/tocsin}"
syslog_ng="$cache/syslog-ng"

say() { echo "peers: $*"; }
fail() { echo "peers: $*" >&2; exit 1; }

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || fail "this is not Debian: install by hand: $packages syslog-ng-core"

installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ]; }

missing() {
    for package in "$@"; do
        installed "$package" || printf '%s ' "$package"
    done
}

# Output is shown only if the command fails.
quietly() {
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output" >&2
        return 1
    fi
}

updated=no
update() {
    [ "$updated" = yes ] && return
    if [ "$(id -u)" -eq 0 ]; then
        say "reading the package lists"
        quietly apt-get -q update || fail "apt-get update failed: see above"
    fi
    updated=yes
}

install_packages() {
    wanted=$(missing $packages)
    [ -z "$wanted" ] && return
    [ "$(id -u)" -eq 0 ] || { say "not root, so these stay missing: $wanted" >&2; incomplete=yes; return; }
    update
    say "installing $wanted"
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive quietly apt-get -q -y --no-install-recommends install $wanted \
        || fail "apt-get install failed: see above"
}

# The libraries that syslog-ng-core needs and this machine has not, by package name. `a | b` counts as there if either is.
needed_by_syslog_ng() {
    apt-cache depends --important syslog-ng-core | sed -n 's/^ [ |]Depends: \([a-z0-9][^ ]*\)$/\1/p' | while read -r package; do
        case "$package" in
            lib*) installed "$package" || echo "$package" ;;
        esac
    done
}

works() { "$syslog_ng/syslog-ng" --version >/dev/null 2>&1; }

unpack_syslog_ng() {
    works && return
    update
    say "unpacking syslog-ng into $syslog_ng"
    work="$syslog_ng.$$"
    rm -rf "$work"
    mkdir -p "$work/deb"
    trap 'rm -rf "$work"' EXIT
    # shellcheck disable=SC2046  # a list of words
    (cd "$work/deb" && quietly apt-get -q download -o APT::Sandbox::User=root syslog-ng-core $(needed_by_syslog_ng)) \
        || fail "apt-get download failed: see above (run apt-get update as root once)"
    for package in "$work"/deb/*.deb; do
        dpkg -x "$package" "$work/root"
    done
    rm -rf "$work/deb"
    cat >"$work/syslog-ng" <<'SCRIPT'
#!/bin/sh
# syslog-ng from the folder this script lies in, with its own libraries and modules.
root=$(cd "$(dirname "$0")" && pwd)/root
libraries=$root/usr/lib/syslog-ng
for folder in "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu*; do
    [ -d "$folder" ] && libraries=$libraries:$folder
done
modules=$(echo "$root"/usr/lib/syslog-ng/[0-9]*)
LD_LIBRARY_PATH=$libraries exec "$root/usr/sbin/syslog-ng" --module-path="$modules" "$@"
SCRIPT
    chmod +x "$work/syslog-ng"
    rm -rf "$syslog_ng"
    mv "$work" "$syslog_ng"
    trap - EXIT
    works || { "$syslog_ng/syslog-ng" --version >&2 || true; fail "syslog-ng does not start: see above"; }
}

build_store() {
    script=$(dirname "$0")/../s3/store.py
    command -v go >/dev/null || { say "go is not on PATH, so the S3 store stays missing" >&2; incomplete=yes; return; }
    command -v python3 >/dev/null || { say "python3 is not on PATH, so the S3 store stays missing" >&2; incomplete=yes; return; }
    python3 "$script" --built && return
    say "building the S3 store (a few minutes)"
    quietly python3 "$script" --fetch || fail "the S3 store cannot be built: see above"
}

incomplete=no
install_packages
unpack_syslog_ng
build_store
[ "$incomplete" = no ] || fail "incomplete: see above (packages need root, once)"
say "all there"
