"""From a checkpoint's files to a Llama: read, checked, cast, quantised."""
