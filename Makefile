# Thin names for what the go tool does; .ci/run is the whole check.
.PHONY: build test race soak bench golden ci
build: ; CGO_ENABLED=0 go build -trimpath -o hvnet ./cmd/hvnet
test:  ; go test ./...
race:  ; go test -race ./...
soak:  ; go run ./internal/soak -time 30m
bench: ; go test -run '^$$' -bench . -benchmem ./ring ./rndis ./offload ./hv/... ./netvsc ./netvsp ./vswitch ./link/... ./bench
golden: ; go test ./internal/golden -run TestLinux -count=1 -update -timeout 60m
ci:    ; bash .ci/run
