"""What losses are made of: similarities, embeddings, regions, anchors, pooling, attention."""
