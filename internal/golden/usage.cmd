# Command lines whose answer depends on no device.
ethtool
ethtool -h
ethtool --help
ethtool --version
ethtool --version x
ethtool -zz eth0
ethtool --show-channel eth0
ethtool -L=eth0
ethtool -i
ethtool -l
ethtool -L
ethtool -S
ethtool -k
ethtool -x
ethtool -s
ethtool --debug
ethtool --debug x -l eth0
ethtool --json -h
ethtool --json --version
