# Every target is one line; the work is in the scripts. `make demo` first.
.PHONY: demo demo-canary demo-stop test unit lint e2e e2e-kind e2e-gateway apiserver-tests images chart cluster-up cluster-down cluster-selftest bench clean

demo:             ; @scripts/demo.sh
demo-canary:      ; @scripts/demo-canary.sh
demo-stop:        ; @scripts/demo.sh stop
test:             ; @scripts/test.sh
unit:             ; @scripts/unit.sh
lint:             ; @scripts/lint.sh
e2e:              ; @e2e/run
e2e-kind:         ; @e2e/run --kind
e2e-gateway:      ; @e2e/run --gateway
apiserver-tests:  ; @tests/run
images:           ; @scripts/images.sh
chart:            ; @scripts/chart.sh check
cluster-up:       ; @e2e/cluster/up dev
cluster-down:     ; @e2e/cluster/down dev
cluster-selftest: ; @e2e/cluster/selftest
bench:            ; @bench/run
clean:            ; @scripts/clean.sh
