"""Chat models by name, and a language model that runs inside the process.

`resolve.resolve_chat_model("provider:name")` gives any LangChain chat model. `embedded.EmbeddedChatModel` is llama.cpp
in the process: no server to install, no key, and answers that can be repeated to the last bit. `catalogue` and `fetch`
bring its model files; `batch` and `recorded` are teachers whose answers lie in files.
"""
