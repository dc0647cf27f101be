"""Messages on the wire: `federation.proto` and the module that protoc makes of it."""
