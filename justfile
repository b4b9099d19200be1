# What people and CI run. `just` alone lists it. Each line works without just, too.

default:
    @just --list

# Everything on this machine, with no AWS account
dev *ARGS:
    cargo dev {{ARGS}}

# Every test; the clients of other languages are installed under target/peers
test:
    cargo test --workspace --no-fail-fast

# Spelling, format, lints, documentation
lint:
    .ci/lint

# Which dependencies may be linked
deny:
    cargo deny check bans licenses sources

# The figures of docs/performance.md
bench *ARGS:
    cargo bench --bench serving -- {{ARGS}}

# What one would take instead of the broker, beside it: a table, and docs/performance-peers.svg
bench-peers *ARGS:
    cargo bench --bench peers -- {{ARGS}}

# Flame graphs in target/flame of all loads, or of those named: cached cached-fsync from-kms encrypt-1-kib encrypt-1-mib verify
flame *LOADS:
    cargo bench --bench flame -- {{LOADS}}

# A simulated day of so many brokers before one store: verified, counted, and held against what audit cost foretells
fleet BROKERS="1000":
    KEY_BROKER_FLEET={{BROKERS}} cargo test --release -p key-broker-trail --lib delivery::tests::many -- --nocapture

# Fuzz the :authority adapter or, as TARGET, attestation, cms, envelope or names (nightly toolchain and cargo-fuzz)
fuzz SECONDS="60" TARGET="authority":
    cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}
