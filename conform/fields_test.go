package conform

import (
	"testing"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

func TestFieldName(t *testing.T) {
	for name, want := range map[string]string{
		"TargetVP": "target VP", "SINT": "SINT", "ID": "ID", "OpenID": "open ID", "MaxMDL": "max MDL", "Relid": "relid",
		"ParentToChild": "parent to child", "OID": "OID", "TCPv4": "TCPv4", "LSOv1": "LSOv1", "MTU": "MTU", "GPADL": "GPADL",
		"BaseCPU": "base CPU", "HashInfo": "hash info",
	} {
		if got := fieldName(name); got != want {
			t.Errorf("fieldName(%s) = %q, want %q", name, got, want)
		}
	}
}

func TestFields(t *testing.T) {
	for _, c := range []struct {
		m    any
		want string
	}{
		{vmbus.RequestOffers{}, ""},
		{vmbus.OpenResult{Relid: 1, OpenID: 2, Status: vmbus.StatusUnsuccessful}, "relid 1, open ID 2, status 0x8000ffff"},
		{vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2}, "version 5.3, target VP 0, SINT 2"},
		{nvsp.RNDISPacket{Channel: 1, Section: nvsp.NoSection}, "channel 1, section 0xffffffff, section bytes 0"},
		{nvsp.SendReceiveBufferComplete{Status: nvsp.StatusFail}, "status failure"},
		{nvsp.VFAssociation{Allocated: true, Serial: 7}, "allocated yes, serial 7"},
		{nvsp.SwitchDataPath{Path: nvsp.PathVF}, "path 1"},
		{rndis.QueryComplete{RequestID: 3, Info: make([]byte, 41)}, "request ID 3, status success, info " +
			"00000000000000000000000000000000000000000000000000000000000000000000000000000000… (41)"},
		{setting{1, rndis.OIDOffloadParameters, rndis.OffloadParameters{TCPv4: rndis.ChecksumBoth}},
			"request ID 1, OID TCP_OFFLOAD_PARAMETERS, value {TCPv4 4, flags 0x0}"},
		{frame{50, 44, 6, []string{"hash"}}, "length 50, data offset 44, data len 6, info hash"},
	} {
		if got := fields(c.m); got != c.want {
			t.Errorf("fields(%#v)\n got %s\nwant %s", c.m, got, c.want)
		}
	}
}
