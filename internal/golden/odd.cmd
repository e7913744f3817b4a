# Command lines that are rarely typed, about eth0 and about no device. They are not asked
# of Linux's driver; what the real ethtool makes of ours and what our own says is compared.
ethtool -S eth0 extra
ethtool -P eth0 x
ethtool -T eth0 x
ethtool -d eth0 hex
ethtool -d eth0 raw maybe
ethtool -d eth0 raw on
ethtool ""
ethtool averylonginterfacename
ethtool -s averylonginterfacename speed 1
ethtool -d averylonginterfacename
ethtool -e averylonginterfacename
ethtool --reset averylonginterfacename all
ethtool -s * speed 1
ethtool -P *
ethtool -t *
ethtool --cable-test *
ethtool --get-tunable * x
ethtool -a nosuch
ethtool -A nosuch rx on
ethtool -c nosuch
ethtool -C nosuch rx-usecs 5
ethtool -Q nosuch --show-coalesce
ethtool -e nosuch
ethtool -E nosuch value 1
ethtool -t nosuch
ethtool -p nosuch
ethtool -p nosuch 1
ethtool -r nosuch
ethtool -m nosuch
ethtool -f nosuch nosuch
ethtool -w nosuch
ethtool -W nosuch 1
ethtool --show-eee nosuch
ethtool --set-eee nosuch eee on
ethtool --show-fec nosuch
ethtool --set-fec nosuch encoding off
ethtool --show-priv-flags nosuch
ethtool --set-priv-flags nosuch a on
ethtool --phy-statistics nosuch
ethtool --reset nosuch all
ethtool --get-tunable nosuch rx-copybreak
ethtool --set-tunable nosuch rx-copybreak 1
ethtool --get-phy-tunable nosuch downshift
ethtool --set-phy-tunable nosuch downshift on
ethtool --show-tunnels nosuch
ethtool --show-module nosuch
ethtool --set-module nosuch power-mode-policy high
ethtool --cable-test nosuch
ethtool --cable-test-tdr nosuch
ethtool -d nosuch raw on
ethtool -a eth0 x
ethtool -A eth0
ethtool -A eth0 rx
ethtool -A eth0 rx maybe
ethtool -A eth0 foo on
ethtool -A eth0 rx 1
ethtool -c eth0 x
ethtool -C eth0
ethtool -C eth0 foo 1
ethtool -C eth0 rx-usecs
ethtool -C eth0 rx-usecs x
ethtool -C eth0 adaptive-rx on
ethtool -C eth0 adaptive-rx 1
ethtool -C eth0 cqe-mode-rx on
ethtool -C eth0 tx-frames-irq 3 sample-interval 1 pkt-rate-low 3
ethtool -Q eth0
ethtool -Q eth0 --coalesce rx-usecs 5
ethtool -Q eth0 queue_mask 0x3 --show-coalesce
ethtool -Q eth0 foo
ethtool -Q eth0 queue_mask x --show-coalesce
ethtool -Q eth0 queue_mask 3 -l
ethtool -e eth0 raw on
ethtool -e eth0 offset 0 length 4
ethtool -e eth0 foo
ethtool -e eth0 offset
ethtool -E eth0
ethtool -E eth0 magic 1 offset 0 length 1 value 3
ethtool -E eth0 foo 1
ethtool -E eth0 value 300
ethtool -t eth0 online
ethtool -t eth0 offline
ethtool -t eth0 external_lb
ethtool -t eth0 foo
ethtool -t eth0 online x
ethtool -p eth0
ethtool -p eth0 x
ethtool -p eth0 1 2
ethtool -r eth0 x
ethtool -m eth0 raw on
ethtool -m eth0 hex on offset 0 length 3
ethtool -m eth0 foo
ethtool -m eth0 page 1
ethtool -m eth0 bank 1
ethtool -m eth0 i2c 0x50 page 0 length 1
ethtool -f eth0
ethtool -f eth0 a 1
ethtool -f eth0 a x
ethtool -f eth0 a 1 2
ethtool -w eth0 data x
ethtool -w eth0 foo
ethtool -w eth0 data
ethtool -W eth0
ethtool -W eth0 x
ethtool -W eth0 1 2
ethtool -W eth0 1
ethtool --show-eee eth0 x
ethtool --set-eee eth0
ethtool --set-eee eth0 foo on
ethtool --set-eee eth0 tx-timer 3
ethtool --set-eee eth0 eee
ethtool --set-eee eth0 advertise 3
ethtool --set-eee eth0 tx-lpi 1
ethtool --show-fec eth0 x
ethtool --set-fec eth0
ethtool --set-fec eth0 encoding
ethtool --set-fec eth0 encoding foo
ethtool --set-fec eth0 encoding auto off
ethtool --set-fec eth0 foo
ethtool --show-priv-flags eth0 x
ethtool --set-priv-flags eth0
ethtool --set-priv-flags eth0 a
ethtool --phy-statistics eth0 x
ethtool --reset eth0
ethtool --reset eth0 foo
ethtool --reset eth0 mgmt phy-shared
ethtool --reset eth0 flags 3
ethtool --reset eth0 flags x
ethtool --reset eth0 dedicated
ethtool --reset eth0 flags 0
ethtool --get-tunable eth0
ethtool --get-tunable eth0 foo
ethtool --get-tunable eth0 tx-copybreak rx-copybreak
ethtool --get-tunable eth0 pfc-prevention-tout
ethtool --get-tunable eth0 tx-buf-size
ethtool --set-tunable eth0
ethtool --set-tunable eth0 rx-copybreak
ethtool --set-tunable eth0 rx-copybreak x
ethtool --set-tunable eth0 foo 1
ethtool --set-tunable eth0 tx-copybreak 1 rx-copybreak 2
ethtool --set-tunable eth0 pfc-prevention-tout 1
ethtool --set-tunable eth0 tx-buf-size 1
ethtool --get-phy-tunable eth0
ethtool --get-phy-tunable eth0 foo
ethtool --get-phy-tunable eth0 fast-link-down
ethtool --get-phy-tunable eth0 energy-detect-power-down
ethtool --get-phy-tunable eth0 downshift x
ethtool --set-phy-tunable eth0
ethtool --set-phy-tunable eth0 downshift
ethtool --set-phy-tunable eth0 downshift on
ethtool --set-phy-tunable eth0 downshift on count 3
ethtool --set-phy-tunable eth0 downshift off
ethtool --set-phy-tunable eth0 downshift on count
ethtool --set-phy-tunable eth0 downshift on count x
ethtool --set-phy-tunable eth0 fast-link-down on
ethtool --set-phy-tunable eth0 fast-link-down on msecs 3
ethtool --set-phy-tunable eth0 fast-link-down off
ethtool --set-phy-tunable eth0 energy-detect-power-down on
ethtool --set-phy-tunable eth0 energy-detect-power-down off
ethtool --set-phy-tunable eth0 energy-detect-power-down on msecs 4
ethtool --set-phy-tunable eth0 foo on
ethtool --show-tunnels eth0 x
ethtool --show-module eth0 x
ethtool --cable-test eth0 x
ethtool --set-module eth0
ethtool -s eth0 lanes 1
ethtool -s eth0 msglvl
ethtool -s eth0 wol pumbagsf
ethtool -s eth0 wol q
ethtool -s eth0 wol 3
ethtool -s eth0 wol d
ethtool -s eth0 sopass 1:2:3:4:5:6
ethtool -s eth0 sopass x
ethtool -s eth0 xcvr external
ethtool -s eth0 xcvr internal
ethtool -s eth0 phyad x
ethtool -s eth0 phyad 0
ethtool -s eth0 advertise x
ethtool -s eth0 advertise
ethtool -s eth0 advertise 0x1/0x2
ethtool -s eth0 duplex
ethtool -s eth0 port da
ethtool -s eth0 port foo
ethtool -s eth0 mdix on
ethtool -s eth0 mdix maybe
ethtool -s eth0 msglvl 0x100000
ethtool -s eth0 msglvl drv
ethtool -s eth0 msglvl drv on x
ethtool -s eth0 speed ""
ethtool -s eth0 speed 0x10
ethtool -s eth0 speed " 5"
ethtool -s eth0 msglvl 5 speed 10
ethtool -s nosuch wol g sopass 1:2:3:4:5:6 msglvl 5 speed 1 duplex half port tp autoneg on phyad 1 xcvr internal mdix auto
ethtool -s eth0 msglvl 4294967296
ethtool -s eth0 msglvl 1x
ethtool -s eth0 lanes
ethtool -s eth0 speed 5 lanes 1
ethtool -s nosuch lanes 1
ethtool -s eth0 msglvl drv on -- speed 1
ethtool -s eth0 advertise 10baseT/Half on
ethtool -d eth0 file /nosuch
ethtool -T averylonginterfacename
ethtool -a averylonginterfacename
ethtool -d *
ethtool --show-tunnels *
ethtool -m *
