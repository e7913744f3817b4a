# Thin names for what the go tool does; .ci/run is the whole check.
.PHONY: build test race soak bench golden linux matrix ci
build: ; CGO_ENABLED=0 go build -trimpath -o hvnet ./cmd/hvnet
test:  ; go test ./...
race:  ; go test -race ./...
soak:  ; go run ./internal/soak -time 30m
bench: ; go test -run '^$$' -bench . -benchmem ./ring ./rndis ./offload ./hv/... ./netvsc ./netvsp ./vswitch ./link/... ./bench
golden: ; go test ./internal/golden -run TestLinux -count=1 -update -timeout 60m
linux: ; for k in 6.1 6.12 newest; do KERNEL=$$k peers/linux-guest/build.sh || exit; done; HVNET_LONG=1 go test -count=1 -timeout 30m ./internal/linuxguest
matrix: ; HVNET_LONG=1 go test -count=1 -timeout 10m ./internal/matrix
ci:    ; bash .ci/run
