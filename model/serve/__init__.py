"""An HTTP server for any OpenAI client, whose answers depend on the request alone, never on the load.

`engine/` batches requests, `api/` knows what each kind of request and reply means, `http/` carries them.
"""
