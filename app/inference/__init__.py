"""From an upload's bytes to a prediction: admission, decoding, batching, the run."""
