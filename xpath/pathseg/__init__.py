"""PathSeg: the label set's public sources, made trainable."""
