package nic

import "testing"

func TestAccount(t *testing.T) {
	for _, tt := range []struct {
		a    Account
		want string
	}{
		{Account{}, ""},
		{Account{What: "sections", Total: 7, Free: 7}, ""},
		{Account{What: "sections", Total: 7, Free: 4, InFlight: 2}, "sections: of 7, 4 are free, 2 in flight and 1 held"},
		{Account{What: "sections", Total: 7, Free: 8}, "sections: of 7, 8 are free, 0 in flight and -1 held"},
		{Account{What: "sections", Total: 7, Free: 7, InFlight: 1}, "sections: of 7, 7 are free, 1 in flight and -1 held"},
	} {
		got := ""
		if err := tt.a.AtRest(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.a, got, tt.want)
		}
	}
}
