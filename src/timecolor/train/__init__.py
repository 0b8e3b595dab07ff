"""Training of the embedded networks: presets, batches made on the fly, one flat loop."""
