"""The service: `main` composes it from the modules in `installed`, which stand on `ports`, which stand on `kit`."""
