# What is asked of eth0, in this order, beginning with a driver that has just been
# loaded: later answers depend on earlier settings. Words are separated by blanks, and
# quoted as in Go. A line that begins with "nobody" is run without rights.

# Settings of the link
ip link set eth0 up
ethtool eth0
ethtool nosuch
ethtool eth0 x
ethtool *
nobody ethtool eth0
ethtool -s eth0
ethtool -s eth0 speed 1000
ethtool eth0
ethtool -s eth0 speed 25000 duplex half
ethtool eth0
ethtool -s eth0 speed 1000 duplex full autoneg off
ethtool -s eth0 speed 4294967295
ethtool -s eth0 speed 0
ethtool eth0
ethtool -s eth0 speed -1
ethtool -s eth0 speed x
ethtool -s eth0 duplex full
ethtool -s eth0 duplex twice
ethtool -s eth0 autoneg on
ethtool -s eth0 autoneg off
ethtool -s eth0 port tp
ethtool -s eth0 phyad 1
ethtool -s eth0 mdix auto
ethtool -s eth0 advertise 0x20
ethtool -s eth0 wol g
ethtool -s eth0 master-slave preferred-master
ethtool -s eth0 speed
ethtool -s eth0 nosuch 1
ethtool -s nosuch speed 1000
nobody ethtool -s eth0 speed 1000
ethtool -s eth0 msglvl 7
ethtool eth0
ethtool -s eth0 msglvl drv off tx_err on
ethtool eth0
ethtool -s eth0 msglvl 0xf7/0xff
ethtool -s eth0 msglvl 0xf7
ethtool -s eth0 msglvl nosuch on
ip link set eth0 down
ethtool eth0
ip link set eth0 up
ethtool --json eth0

# Driver, registers, address, clock
ethtool -i eth0
ethtool --driver eth0
ethtool -i nosuch
ethtool -i eth0 x
ethtool -i averylonginterfacename
ethtool -i *
ethtool --json -i eth0
nobody ethtool -i eth0
ethtool -d eth0
ethtool -d eth0 hex on
ethtool -d nosuch
ethtool -d eth0 x
nobody ethtool -d eth0
ethtool -T eth0
ethtool -T nosuch
ethtool --json -T eth0
ethtool -P eth0
ethtool -P nosuch

# Counters
ethtool -S eth0
ethtool --statistics eth0
ethtool -S nosuch
ethtool -S eth0 x
ethtool -S eth0 --groups eth-mac
ethtool -S eth0 --all-groups
ethtool -S eth0eth0eth0eth0
ethtool -S *
ethtool --json -S eth0
ethtool -I -a eth0
nobody ethtool -S eth0

# Table of queues and key
ethtool -x eth0
ethtool -x nosuch
ethtool -x eth0 context 1
ethtool -x eth0 x
ethtool --json -x eth0
nobody ethtool -x eth0
ethtool -X eth0
ethtool -X eth0 equal 3
ethtool -L eth0 combined 2
ethtool -x eth0
ethtool -L eth0 combined 3
ethtool -l eth0
ethtool -x eth0
ethtool -X eth0 default
ethtool -L eth0 combined 2
ethtool -x eth0
ethtool -X eth0 equal 3
ethtool -L eth0 combined 4
ethtool -X eth0 weight 1 1 1
ethtool -x eth0
ethtool -X eth0 weight 6 2 0 1
ethtool -x eth0
ethtool -X eth0 weight 1 1 1 1 1
ethtool -X eth0 weight 0 0
ethtool -X eth0 weight 100 100
ethtool -X eth0 weight x
ethtool -X eth0 weight
ethtool -X eth0 equal 2 start 2
ethtool -x eth0
ethtool -X eth0 equal 2 start 3
ethtool -X eth0 equal 5
ethtool -X eth0 equal 0
ethtool -X eth0 equal -1
ethtool -X eth0 start 1
ethtool -X eth0 equal 2 weight 1 1
ethtool -X eth0 equal 2 default
ethtool -X eth0 weight 1 default
ethtool -X eth0 default start 1
ethtool -X eth0 delete
ethtool -X eth0 context new
ethtool -X eth0 context 1 delete
ethtool -X eth0 hkey 00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f:20:21:22:23:24:25:26:27
ethtool -x eth0
ethtool -X eth0 hkey 6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa equal 4
ethtool -x eth0
ethtool -X eth0 hkey 00:01
ethtool -X eth0 hkey 00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f:20:21:22:23:24:25:26:27:28
ethtool -X eth0 hkey zz
ethtool -X eth0 hfunc toeplitz
ethtool -X eth0 hfunc xor
ethtool -X eth0 hfunc foo
ethtool -X eth0 nosuch
ethtool -X nosuch equal 2
nobody ethtool -X eth0 equal 2
ethtool -X eth0 default
ethtool -x eth0
ethtool -L eth0 combined 1
ethtool -x eth0
ethtool -X eth0 equal 1
ethtool -L eth0 combined 4
ethtool -x eth0
ethtool -X eth0 hkey 6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa
ethtool -X eth0 default
ethtool -x eth0

# Channels
ethtool -l eth0
ethtool --show-channels eth0
ethtool -l nosuch
ethtool -l eth0 x
ethtool -l eth0eth0eth0eth0
ethtool -l *
ethtool -l ""
ethtool --json -l eth0
ethtool --debug 0 -I --include-statistics -l nosuch
nobody ethtool -l eth0
ethtool -L eth0
ethtool -L eth0 combined 4
ethtool -L eth0 combined 1
ethtool -l eth0
ethtool -d eth0
ethtool -L eth0 combined 1
ethtool -S eth0
ethtool -L eth0 combined 3
ethtool -l eth0
ethtool -x eth0
ethtool -d eth0
ethtool -L eth0 combined 0
ethtool -L eth0 combined 5
ethtool -L eth0 combined 64
ethtool -L eth0 combined 99
ethtool -L eth0 rx 1
ethtool -L eth0 tx 1
ethtool -L eth0 other 1
ethtool -L eth0 rx 1 combined 2
ethtool -L eth0 rx 0
ethtool -L eth0 rx 0 tx 0 other 0 combined 3
ethtool -L eth0 combined 3 other 0 tx 0 rx 0
ethtool -L eth0 rx 0 combined 2
ethtool -l eth0
ethtool -L eth0 combined
ethtool -L eth0 combined x
ethtool -L eth0 combined 2x
ethtool -L eth0 combined -1
ethtool -L eth0 rx -1 combined 2
ethtool -L eth0 combined 0x1
ethtool -L eth0 combined 02
ethtool -L eth0 combined 08
ethtool -L eth0 combined +1
ethtool -L eth0 combined ""
ethtool -L eth0 combined 2147483648
ethtool -L eth0 combined -2147483649
ethtool -L eth0 combined 1 combined 2
ethtool -L eth0 foo
ethtool -L eth0 combined 2 foo 1
ethtool -L nosuch combined 2
ethtool -L nosuch combined x
ethtool -L * combined 1
ethtool --json -L eth0 combined 2
nobody ethtool -L eth0 combined 3
nobody ethtool -L eth0 combined 99
ip link set eth0 down
ethtool -L eth0 combined 3
ethtool -l eth0
ip link set eth0 up
ethtool --set-channels eth0 combined 4
ethtool -l eth0

# Rings
ethtool -g eth0
ethtool --show-ring eth0
ethtool -g nosuch
ethtool -g eth0 x
ethtool -g *
ethtool --json -g eth0
nobody ethtool -g eth0
ethtool -G eth0
ethtool -G eth0 rx 100
ethtool -g eth0
ethtool -G eth0 rx 5 tx 5
ethtool -g eth0
ethtool -G eth0 rx 0 tx 0
ethtool -g eth0
ethtool -G eth0 rx 500 tx 171
ethtool -g eth0
ethtool -G eth0 tx 171
ethtool -G eth0 rx 1000 tx 171
ethtool -g eth0
ethtool -G eth0 rx 9709
ethtool -g eth0
ethtool -G eth0 rx 99999
ethtool -G eth0 rx 18812
ethtool -G eth0 rx 18811 tx 2560
ethtool -g eth0
ethtool -G eth0 rx 17998
ethtool -g eth0
ethtool -G eth0 rx 9102
ethtool -G eth0 tx 2561
ethtool -G eth0 rx -1
ethtool -G eth0 rx-mini 0
ethtool -G eth0 rx-mini 1
ethtool -G eth0 rx-jumbo 1
ethtool -G eth0 rx 100 rx-jumbo 1
ethtool -G eth0 rx-buf-len 2048
ethtool -G eth0 cqe-size 32
ethtool -G eth0 tx-push on
ethtool -G eth0 rx
ethtool -G eth0 rx x
ethtool -G eth0 foo 1
ethtool -G nosuch rx 100
nobody ethtool -G eth0 rx 100
ip link set eth0 mtu 4000
ethtool -g eth0
ethtool -G eth0 rx 2000 tx 100
ethtool -g eth0
ip link set eth0 mtu 1500
ethtool -g eth0
ip link set eth0 down
ethtool --set-ring eth0 rx 5000 tx 170
ethtool -g eth0
ip link set eth0 up
ethtool -L eth0 combined 2
ethtool -g eth0
ethtool -L eth0 combined 4

# Offloads
ethtool -k eth0
ethtool --json -k eth0
ethtool -k nosuch
ethtool -k eth0 x
nobody ethtool -k eth0
ethtool -K eth0
ethtool -K eth0 lro on
ethtool -k eth0
ethtool -K eth0 lro off
ethtool -K eth0 tx off
ethtool -k eth0
ethtool -K eth0 tx on
ethtool -K eth0 tx on tso on
ethtool -K eth0 rx off
ethtool -K eth0 rx on
ethtool -K eth0 sg off
ethtool -k eth0
ethtool -K eth0 sg on
ethtool -K eth0 tso on gso on
ethtool -K eth0 tso off
ethtool -K eth0 tso on
ethtool -K eth0 gso off
ethtool -K eth0 gso on
ethtool -K eth0 gro off
ethtool -K eth0 gro on
ethtool -K eth0 rxhash off
ethtool -K eth0 rxhash on
ethtool -K eth0 rxvlan off
ethtool -K eth0 txvlan off
ethtool -K eth0 ntuple on
ethtool -K eth0 highdma off
ethtool -K eth0 highdma on
ethtool -K eth0 vlan-challenged on
ethtool -K eth0 tx-checksum-ipv4 off
ethtool -K eth0 tx-checksum-ipv4 on
ethtool -K eth0 tx-checksum-ipv6 off tx-tcp6-segmentation off
ethtool -K eth0 tx-checksum-ipv6 on tx-tcp6-segmentation on
ethtool -K eth0 tx-checksum-sctp on
ethtool -K eth0 tx-tcp-mangleid-segmentation on
ethtool -K eth0 tx-tcp-mangleid-segmentation off
ethtool -K eth0 tx-nocache-copy on
ethtool -K eth0 tx-nocache-copy off
ethtool -K eth0 rx-gro-list on rx-udp-gro-forwarding on
ethtool -K eth0 rx-gro-list off rx-udp-gro-forwarding off
ethtool -K eth0 ufo on
ethtool -K eth0 generic-segmentation-offload off
ethtool -K eth0 tcp-segmentation-offload on generic-segmentation-offload on
ethtool -K eth0 nosuch on
ethtool -K eth0 tx
ethtool -K eth0 tx maybe
ethtool -K nosuch tx off
nobody ethtool -K eth0 tx off
ethtool -k eth0

# Hash levels and filters
ethtool -n eth0
ethtool -n nosuch
ethtool -n eth0 rule 1
ethtool -n eth0 rx-flow-hash tcp4
ethtool -n eth0 rx-flow-hash udp4
ethtool -n eth0 rx-flow-hash tcp6
ethtool -n eth0 rx-flow-hash udp6
ethtool -n eth0 rx-flow-hash ah4
ethtool -n eth0 rx-flow-hash esp4
ethtool -n eth0 rx-flow-hash sctp4
ethtool -n eth0 rx-flow-hash ah6
ethtool -n eth0 rx-flow-hash esp6
ethtool -n eth0 rx-flow-hash sctp6
ethtool -n eth0 rx-flow-hash ether
ethtool -n eth0 rx-flow-hash ip4
ethtool -n eth0 rx-flow-hash tcp4 context 1
ethtool -n eth0 rx-flow-hash
ethtool -n nosuch rx-flow-hash tcp4
ethtool -u eth0
ethtool --json -n eth0
nobody ethtool -n eth0 rx-flow-hash tcp4
ethtool -N eth0 rx-flow-hash udp4 sd
ethtool -n eth0 rx-flow-hash udp4
ethtool -n eth0 rx-flow-hash udp6
ethtool -N eth0 rx-flow-hash udp4 nfds
ethtool -n eth0 rx-flow-hash udp4
ethtool -N eth0 rx-flow-hash tcp4 sd
ethtool -N eth0 rx-flow-hash tcp6 ds
ethtool -N eth0 rx-flow-hash udp6 sd
ethtool -n eth0 rx-flow-hash tcp4
ethtool -n eth0 rx-flow-hash tcp6
ethtool -n eth0 rx-flow-hash udp6
ethtool -N eth0 rx-flow-hash tcp4 sdfn
ethtool -N eth0 rx-flow-hash tcp6 sdfn
ethtool -N eth0 rx-flow-hash udp6 sdfn
ethtool -N eth0 rx-flow-hash udp4 s
ethtool -N eth0 rx-flow-hash udp4 sdf
ethtool -N eth0 rx-flow-hash udp4 fn
ethtool -N eth0 rx-flow-hash udp4 m
ethtool -N eth0 rx-flow-hash udp4 sdv
ethtool -N eth0 rx-flow-hash udp4 t
ethtool -N eth0 rx-flow-hash udp4 r
ethtool -N eth0 rx-flow-hash sctp4 sdfn
ethtool -N eth0 rx-flow-hash esp4 sd
ethtool -N eth0 rx-flow-hash ether m
ethtool -N eth0 rx-flow-hash udp4 sdfn context 1
ethtool -N eth0 rx-flow-hash udp4 q
ethtool -N eth0 rx-flow-hash udp4
ethtool -N eth0 rx-flow-hash ip4 sd
ethtool -N nosuch rx-flow-hash udp4 sd
ethtool -N eth0 flow-type tcp4 dst-port 80 action 1
ethtool -N eth0 delete 1
ethtool -N eth0
nobody ethtool -N eth0 rx-flow-hash udp4 sd
ethtool -n eth0 rx-flow-hash udp4

# What there is none of
ethtool -a eth0
ethtool --json -a eth0
ethtool -A eth0 rx on
ethtool -c eth0
ethtool -C eth0 rx-usecs 5
ethtool -Q eth0 --show-coalesce
ethtool -e eth0
ethtool -E eth0 value 1
ethtool -t eth0
ethtool -p eth0 1
ethtool -r eth0
ethtool -m eth0
ethtool -f eth0 nosuch
ethtool -w eth0
ethtool --show-eee eth0
ethtool --set-eee eth0 eee on
ethtool --show-fec eth0
ethtool --set-fec eth0 encoding off
ethtool --show-priv-flags eth0
ethtool --set-priv-flags eth0 a on
ethtool --phy-statistics eth0
ethtool --reset eth0 all
ethtool --get-tunable eth0 rx-copybreak
ethtool --set-tunable eth0 rx-copybreak 100
ethtool --get-phy-tunable eth0 downshift
ethtool --show-tunnels eth0
ethtool --show-module eth0
ethtool --cable-test eth0
