"""Many pictures to vectors of one kind: what makes them, and the threads, the sizes and the cache around it."""
