"""Training of the embedded denoiser: presets, batches made on the fly, one flat loop."""
