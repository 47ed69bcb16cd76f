"""The teacher embeddings that a step contrasts its pixels with: queues, or the whole store."""
