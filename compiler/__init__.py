"""The Metronome compiler: a Llama checkpoint in, a fully static instruction stream out."""
