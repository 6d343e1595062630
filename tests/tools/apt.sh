# Runs apt-get beside other users of it: a fresh machine upgrades itself just when it is wanted.
# Sourced by tests/run.

apt_wait_secs=600
apt_retry_secs=5

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The one place that calls apt-get. The option covers the locks of dpkg.
apt() {
    "${apt_as[@]}" apt-get -qq -o DPkg::Lock::Timeout="$apt_wait_secs" "$@"
}
apt_as=(as_root)

# The option does not cover the lock of the package lists, which `update` takes.
apt_update() {
    local deadline=$((SECONDS + apt_wait_secs)) log
    until log=$(LC_ALL=C apt "$@" update 2>&1); do
        if [[ $log != *"Could not get lock"* ]] || ((SECONDS >= deadline)); then
            printf '%s\n' "$log" >&2
            return 1
        fi
        echo "waiting for another apt-get to release the package lists"
        sleep "$apt_retry_secs"
    done
}
