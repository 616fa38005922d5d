"""An HTTP server in front of devices, which speaks the OpenAI protocol."""
