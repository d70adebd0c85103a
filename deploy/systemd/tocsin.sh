#!/bin/sh
# /usr/local/bin/tocsin: the command as the units run it, with their account, settings and passwords. As another account,
# files in the registry, the lake or the backups would belong to somebody whom the units cannot read.
set -a
TOCSIN_CONFIG=${TOCSIN_CONFIG:-/etc/tocsin/config.toml}
if [ -r /etc/tocsin/environment ]; then . /etc/tocsin/environment; fi
set +a
umask 0027
exec runuser -u tocsin -- /opt/tocsin/bin/tocsin "$@"
