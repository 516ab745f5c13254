// Models with a text model inside, and families that people ask for and that are not supported.
#include "worker/model/families/family.h"

namespace uniquanf::families {
namespace {

constexpr char kRecurrent[] = "its recurrent layers are of a kind that is not implemented";

constexpr Family kFamilies[] = {
    {"gemma3", "Gemma3ForConditionalGeneration", nullptr, "gemma3_text"},
    {"gemma4", "Gemma4ForConditionalGeneration", nullptr, "gemma4_text"},
    {"kimi_k25", "KimiK25ForConditionalGeneration", nullptr, "kimi_k2"},
    {"lfm2_vl", "Lfm2VlForConditionalGeneration", nullptr, "lfm2"},
    {"qwen3_5", "Qwen3_5ForConditionalGeneration", nullptr, "qwen3_5_text"},
    {"qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", nullptr, "qwen3_5_moe_text"},
    {"llama4", "Llama4ForConditionalGeneration", nullptr, "llama4_text"},
    {"llava", "LlavaForConditionalGeneration", nullptr, "llama"},
    {"llava_next", "LlavaNextForConditionalGeneration", nullptr, "llama"},
    {"mistral3", "Mistral3ForConditionalGeneration", nullptr, "mistral"},
    {"qwen3_vl", "Qwen3VLForConditionalGeneration", nullptr, "qwen3_vl_text"},
    {"qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", nullptr, "qwen3_vl_moe_text"},

    {"bamba", "BambaForCausalLM", nullptr, nullptr, kRecurrent},
    {"deepseek_v4", "DeepseekV4ForCausalLM", nullptr, nullptr,
     "hyper-connections, compressed attention and hashed layers are not implemented"},
    {"falcon_mamba", "FalconMambaForCausalLM", nullptr, nullptr, kRecurrent},
    {"gemma3n", "Gemma3nForConditionalGeneration", nullptr, nullptr,
     "blocks read keys and values of other layers and four streams"},
    {"jamba", "JambaForCausalLM", nullptr, nullptr, kRecurrent},
    {"kimi_k3", "KimiK3ForConditionalGeneration", nullptr, nullptr, kRecurrent},
    {"kimi_linear", "KimiLinearForCausalLM", nullptr, nullptr, kRecurrent},
    {"lfm2_moe", "Lfm2MoeForCausalLM", nullptr, nullptr, kRecurrent},
};

}  // namespace

absl::Span<const Family> nested();
absl::Span<const Family> nested() { return kFamilies; }

}  // namespace uniquanf::families
