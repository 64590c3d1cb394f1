"""The `.beton` container: format, writer, manifest, sidecar, verification."""
