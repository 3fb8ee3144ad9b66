"""The names of model providers: the chat model class behind each, and the spellings in older files."""

from __future__ import annotations

from typing import Final

__all__ = ["canonical_spec", "provider_of"]

# The names of `langchain.chat_models.init_chat_model`, so that a name loads the class it came from.
_CLASSES: Final = {
    "AzureChatOpenAI": "azure_openai",
    "AzureAIOpenAIApiChatModel": "azure_ai",
    "ChatAnthropic": "anthropic",
    "ChatAnthropicBedrock": "anthropic_bedrock",
    "ChatAnthropicMantle": "bedrock_mantle_anthropic",
    "ChatAnthropicVertex": "google_anthropic_vertex",
    "ChatBaseten": "baseten",
    "ChatBedrock": "bedrock",
    "ChatBedrockConverse": "bedrock_converse",
    "ChatCohere": "cohere",
    "ChatDeepSeek": "deepseek",
    "ChatFireworks": "fireworks",
    "ChatGoogleGenerativeAI": "google_genai",
    "ChatGroq": "groq",
    "ChatHuggingFace": "huggingface",
    "ChatLiteLLM": "litellm",
    "ChatMetaModel": "meta",
    "ChatMistralAI": "mistralai",
    "ChatNVIDIA": "nvidia",
    "ChatOllama": "ollama",
    "ChatOpenAI": "openai",
    "ChatOpenAIMantle": "bedrock_mantle_openai",
    "ChatOpenRouter": "openrouter",
    "ChatPerplexity": "perplexity",
    "ChatTogether": "together",
    "ChatUpstage": "upstage",
    "ChatVertexAI": "google_vertexai",
    "ChatWatsonx": "ibm",
    "ChatXAI": "xai",
    "EmbeddedChatModel": "embedded",
}

# What a class calls itself; artifacts of earlier releases hold this instead of the provider.
_KINDS: Final = {
    "amazon_bedrock_chat": "bedrock",
    "amazon_bedrock_converse_chat": "bedrock_converse",
    "anthropic-chat": "anthropic",
    "azure-openai-chat": "azure_openai",
    "chat-deepseek": "deepseek",
    "chat-google-generative-ai": "google_genai",
    "chat-ollama": "ollama",
    "cohere-chat": "cohere",
    "embedded-llama.cpp": "embedded",
    "fireworks-chat": "fireworks",
    "groq-chat": "groq",
    "huggingface-chat-wrapper": "huggingface",
    "mistralai-chat": "mistralai",
    "openai-chat": "openai",
    "perplexity": "perplexity",
    "perplexitychat": "perplexity",
    "together-chat": "together",
    "upstage-chat": "upstage",
    "vertexai": "google_vertexai",
    "xai-chat": "xai",
}


def provider_of(kind: type, name: str) -> str:
    """The provider that builds a chat model class, or `name` if the class is unknown.

    A subclass of a known class counts as that class, since only that one can be built from a name.
    """
    known = (_CLASSES[base.__name__] for base in kind.__mro__ if base.__name__ in _CLASSES)
    return next(known, _KINDS.get(name, name))


def canonical_spec(spec: str) -> str:
    """The `provider:name` with the provider's current name."""
    provider, colon, name = spec.partition(":")
    return f"{_KINDS.get(provider, provider)}{colon}{name}"
