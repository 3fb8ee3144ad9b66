"""Chat models by name, and a language model that runs inside the process.

`resolve.resolve_chat_model("provider:name")` returns any LangChain chat model. `embedded.EmbeddedChatModel` is
llama.cpp in the process: no server, no key, and answers repeatable to the last bit. `catalogue` and `fetch` provide its
model files; `batch` and `recorded` are teachers whose answers come from files.
"""
