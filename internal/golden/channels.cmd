# What is asked of a NIC that has as many channels as its guest has processors, n, one
# fewer and one. Otherwise as in device.cmd; {n-1}, {n} and {n+1} stand for numbers.

ip link set eth0 up
ethtool -l eth0
ethtool -n eth0
ethtool -x eth0
ethtool -L eth0 combined {n}
ethtool -l eth0
ethtool -n eth0
ethtool -x eth0
ethtool -S eth0
nobody ethtool -L eth0 combined 1

# As many as there can be
ethtool -L eth0 combined {n+1}
ethtool -L eth0 combined 0
ethtool -L eth0 combined 65
ethtool -L eth0 rx 1
ethtool -L eth0 rx 1 tx 1 combined {n}
ethtool -L eth0

# A table that says which
ethtool -X eth0 equal {n}
ethtool -x eth0
ethtool -X eth0 equal {n+1}
ethtool -X eth0 equal 1 start {n-1}
ethtool -x eth0
ethtool -X eth0 equal 1 start {n}
ethtool -X eth0 equal 2 start {n-1}
ethtool -X eth0 weight 1 2
ethtool -x eth0
ethtool -X eth0 weight 3 2 1 1
ethtool -x eth0
ethtool -X eth0 weight 0 0 1
ethtool -X eth0 hkey 00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f:20:21:22:23:24:25:26:27
ethtool -x eth0
ethtool -X eth0 hkey 6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa
ethtool -X eth0 hkey 00:01
ethtool -X eth0 hfunc toeplitz
ethtool -X eth0 hfunc xor
ethtool -X eth0 hfunc crc32

# A table with a channel that is to go
ethtool -X eth0 equal {n}
ethtool -L eth0 combined {n-1}
ethtool -l eth0
ethtool -x eth0
ethtool -L eth0 combined 1
ethtool -l eth0
ethtool -X eth0 equal 1
ethtool -x eth0
ethtool -X eth0 default
ethtool -x eth0

# Levels of the hash
ethtool -n eth0 rx-flow-hash tcp4
ethtool -n eth0 rx-flow-hash udp6
ethtool -n eth0 rx-flow-hash sctp4
ethtool -N eth0 rx-flow-hash udp4 sd
ethtool -n eth0 rx-flow-hash udp4
ethtool -N eth0 rx-flow-hash udp4 sdfn
ethtool -n eth0 rx-flow-hash udp4
ethtool -N eth0 rx-flow-hash udp4 s
ethtool -N eth0 rx-flow-hash sctp4 sdfn
ethtool -N eth0 rx-flow-hash udp4 q
ethtool -N eth0 flow-type tcp4 dst-port 80 action 0
ethtool -N eth0 flow-type tcp4 dst-port 80 action {n}
ethtool -N eth0 delete 1

# Fewer channels and more
ethtool -L eth0 combined {n-1}
ethtool -l eth0
ethtool -n eth0
ethtool -x eth0
ethtool -L eth0 combined 1
ethtool -l eth0
ethtool -n eth0
ethtool -x eth0
ethtool -X eth0 equal 1
ethtool -X eth0 equal 2
ethtool -X eth0 default
ethtool -L eth0 combined {n}
ethtool -l eth0
ethtool -x eth0
