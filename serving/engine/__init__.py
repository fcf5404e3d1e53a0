"""One base model and all live adapters behind one small protocol: `serving.engine.protocol`."""
