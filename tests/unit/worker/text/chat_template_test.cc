// Chat templates: the language, its refusals and its bounds; which of a model's files counts.
#include "worker/text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::string> Render(const std::string& source, const Json& variables = {}) {
  const auto parsed = ChatTemplate::Parse(source, {{"bos_token", "<s>"}});
  if (!parsed.ok()) return parsed.status();
  ChatOptions options;
  options.variables = variables;
  return (*parsed)->Render(Json::array(), options);
}

std::string Text(const std::string& source, const Json& variables = {}) {
  const auto text = Render(source, variables);
  EXPECT_THAT(text, IsOk()) << source;
  return text.value_or("");
}

// Each a template and what Jinja2 prints for it.
TEST(ChatTemplateTest, ExpressionsMeanWhatPythonMeans) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }}", "3 -4 2 3.5 1024"},
      {"{{ (1 + 2) ~ 3 }} {{ 2 * 3 + 1 }} {{ -2|abs }} {{ 1 < 2 < 2 }}", "33 7 2 False"},
      {"{{ none }} {{ true }} {{ [1, 'a', none, 2.0] }} {{ (1,) }} {{ {'a': \"it's\"} }}",
       "None True [1, 'a', None, 2.0] (1,) {'a': \"it's\"}"},
      {"{{ missing }}{{ 'x' if missing }}{{ missing is defined }}", "False"},
      {"{{ 'abcde'[1:3] }} {{ 'abcde'[::-1] }} {{ [1, 2, 3][-1] }} {{ 'äöü'[1] }}", "bc edcba 3 ö"},
      {"{{ 'a' in 'abc' }} {{ 1 not in [1, 2] }} {{ 'k' in {'k': 1} }}", "True False True"},
      {"{{ not 0 and [] or 'x' }} {{ 1 if '' else 2 if [] else 3 }}", "x 3"},
      {"{{ 'a\\n\\t\\u00e9\\x41\\q' }}",
       "a\n\té"
       "A\\q"},
      {"{{ 1e3 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e-5 }} {{ 100.0 }}",
       "1000.0 0.30000000000000004 1e+16 1e-05 100.0"},
      {"{{ {'items': 1}['items'] }} {{ {'a': 1}.items()|list }}", "1 [('a', 1)]"},
      {"{{ [1, 2] + [3] }} {{ 'ab' * 2 }} {{ 'a' 'b' }}", "[1, 2, 3] abab ab"},
      {"{{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 'x' is string and 1 is number }} {{ none is "
       "none }}",
       "True True True True"},
      {"{{ [1] is sequence }} {{ {} is mapping }} {{ 'A' is upper }} {{ 1 is not string }}",
       "True True True True"},
      {"{{ range(5)|list }} {{ range(4, 0, -2)|list }}", "[0, 1, 2, 3, 4] [4, 2]"},
      {"{{ {'b': 1, 'a': [1, 'é\"']}|tojson }}", R"({"b": 1, "a": [1, "é\""]})"},
      {"{{ {'b': [], 'a': 1}|tojson(indent=2, sort_keys=true) }}",
       "{\n  \"a\": 1,\n  \"b\": []\n}"},
      {"{{ strftime_now('%d %b %Y') }}", "01 Jan 2025"},
      {"{{ bos_token }}{{ eos_token }}", "<s>"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(Text(source), expected) << source;
}

TEST(ChatTemplateTest, FiltersAndMethods) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ ' a '|trim }}|{{ 'xxaxx'.strip('x') }}|{{ 'xa'.lstrip('x') }}|{{ ' a '.rstrip() }}|",
       "a|a|a| a|"},
      {"{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1)[1] }}",
       "['a', 'b', 'c'] ['a', 'b'] b c"},
      {"{{ 'a.b.c'.rsplit('.', 1) }} {{ 'a\\nb\\r\\n'.splitlines() }}", "['a.b', 'c'] ['a', 'b']"},
      {"{{ 'hello wORLD'|title }} {{ 'hELLO'|capitalize }} {{ 'Ä'|lower }}{{ 'ß'|upper }}",
       "Hello World Hello äSS"},
      {"{{ 'aXbX'.replace('X', '-', 1) }} {{ 'ab'|replace('', '.') }}", "a-bX .a.b."},
      {"{{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('c') }} {{ 'abcb'.find('b') }}",
       "True True 1"},
      {"{{ [3, 1, 2]|sort }} {{ ['b', 'A']|sort|join('-') }} {{ [1, 1, 2]|unique|list }}",
       "[1, 2, 3] A-b [1, 2]"},
      {"{{ [{'a': 1}, {'a': 2}]|map(attribute='a')|join(', ') }} {{ ['x']|map('upper')|first }}",
       "1, 2 X"},
      {"{{ [{'r': 'u'}, {'r': 's'}]|selectattr('r', 'equalto', 's')|list|length }}", "1"},
      {"{{ [{'r': 'u'}, {}]|rejectattr('r')|list }} {{ [0, 1]|select|list }}", "[{}] [1]"},
      {"{{ missing|default('d') }} {{ ''|d('e', true) }} {{ '12'|int + 1 }} {{ 'x'|int }}",
       "d e 13 0"},
      {"{{ 'a\\nb\\n\\nc'|indent(2) }}", "a\n  b\n\n  c"},
      {"{{ {'b': 2, 'a': 1}|dictsort }} {{ {'a': 1}|items|list }}",
       "[('a', 1), ('b', 2)] [('a', 1)]"},
      {"{{ '<a>'|e }} {{ [1, 2, 3]|sum }} {{ [3, 5]|max }} {{ 2.567|round(1) }}",
       "&lt;a&gt; 6 5 2.6"},
      {"{{ [1, 2]|last }} {{ 'ab'|reverse }} {{ {'a': 1}.get('b', 7) }} {{ 'äb'|length }}",
       "2 ba 7 2"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(Text(source), expected) << source;
}

TEST(ChatTemplateTest, StatementsAndScopes) {
  const std::pair<const char*, const char*> cases[] = {
      {"{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}",
       "1/2:1 2/2:3 "},
      {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
      {"{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"},
      {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}"
       "{% endif %}{{ i }}{% endfor %}",
       "02"},
      // A loop's assignments end with each turn; a namespace's do not.
      {"{% set x = 1 %}{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set x = x + 1 %}"
       "{% set n.x = n.x + 1 %}{{ x }}{% endfor %} {{ x }} {{ n.x }}",
       "22 1 3"},
      {"{% macro m(a, b='d') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(b=2, a=3) }}",
       "[1d][32]"},
      {"{% macro m() %}<{{ caller(5) }}>{% endmacro %}{% call(x) m() %}{{ x }}!{% endcall %}",
       "<5!>"},
      {"{% set a %}block{% endset %}{% set b, c = 1, 2 %}{{ a }}{{ b }}{{ c }}", "block12"},
      {"{% filter upper %}abc{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}{{ a }}", "ABC1"},
      {"{% generation %}said{% endgeneration %}{% raw %}{{ x }}{% endraw %}{# gone #}",
       "said{{ x }}"},
      {"{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b", "a, b"},
      // Whitespace: the newline behind a tag and the indent before it go.
      {"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
      {"a  {%- if true -%}  b  {%- endif %}  c", "ab  c"},
      {"a\n  {{- 'b' -}}\n c", "abc"},
      {"  {%+ if true %}x{% endif %}", "  x"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(Text(source), expected) << source;
}

TEST(ChatTemplateTest, ConversationsAreRenderedWithTheirMembers) {
  const auto parsed = ChatTemplate::Parse(
      "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}"
      "{% if tools %}{{ tools|tojson }}{% endif %}{% if add_generation_prompt %}<assistant>"
      "{% endif %}",
      {{"bos_token", "<s>"}});
  ASSERT_THAT(parsed, IsOk());
  const Json conversation = Json::parse(
      R"({"messages": [{"role": "user", "content": "hi"}], "tools": [{"b": 1, "a": 2}]})");
  ChatOptions options;
  options.add_generation_prompt = true;
  EXPECT_EQ((*parsed)->Render(conversation, options).value_or(""),
            R"(<s><user>hi[{"b": 1, "a": 2}]<assistant>)");
  EXPECT_EQ((*parsed)->Render(conversation["messages"], {}).value_or(""), "<s><user>hi");
  EXPECT_THAT((*parsed)->Render(Json::object(), {}), FailsWith(kInvalid, "CHAT_TEMPLATE_FAILED"));
}

TEST(ChatTemplateTest, MistakesNameTheLine) {
  const auto invalid = FailsWith(kInvalid, "INVALID_CHAT_TEMPLATE");
  for (const char* source :
       {"{% if %}{% endif %}", "{% if x %}", "{{ x", "{{ 'x }}", "{% include 'a' %}", "{% endif %}",
        "{{ x | }}", "{{ a b }}", "{# x", "{% for x %}{% endfor %}", "{% break %}", "{{ (1 }}",
        "{% raw %}", "{{ '\\ud800' }}", "{{ ` }}", "{{ 99999999999999999999 }}", "\xFF",
        "{% macro m() %}{% break %}{% endmacro %}"}) {
    EXPECT_THAT(Render(source), invalid) << source;
  }
  EXPECT_THAT(Render("a\nb\n{% if x %}").status().message(), HasSubstr("line 3"));
  const auto failed = FailsWith(kInvalid, "CHAT_TEMPLATE_FAILED");
  for (const char* source :
       {"{{ missing.x }}", "{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{{ none.x() }}", "{{ 'a'|nofilter }}",
        "{{ 1 is notest }}", "{{ [].append(1) }}", "{{ 1 < 'a' }}", "{% for x in 5 %}{% endfor %}",
        "{{ 9223372036854775807 + 1 }}", "{% set x.y = 1 %}", "{{ {[1]: 2} }}", "{{ 'a'[::0] }}",
        "{{ ''.__class__ }}{{ ''.__class__.x }}", "{{ strftime_now('%99999d') }}",
        "{{ missing|tojson }}", "{% set n = namespace() %}{% set n.n = [n] %}"}) {
    EXPECT_THAT(Render(source), failed) << source;
  }
  EXPECT_THAT(Render("a\n{{ 1 / 0 }}").status().message(), HasSubstr("line 2"));
  const auto refused = Render("{{ raise_exception('no system role') }}");
  EXPECT_THAT(refused, FailsWith(kInvalid, "CHAT_TEMPLATE_REFUSED"));
  EXPECT_THAT(refused.status().message(), HasSubstr("no system role"));
}

// Templates are untrusted: what would take for ever, or all memory or stack, is given up.
TEST(ChatTemplateTest, NothingIsUnbounded) {
  const auto repeat = [](const std::string& text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += text;
    return out;
  };
  for (const std::string& source : {
           std::string("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
                       "{% endfor %}"),
           std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
           std::string("{% set n = namespace(s='aaaaaaaa') %}{% for i in range(99) %}"
                       "{% set n.s = n.s ~ n.s %}{% endfor %}"),
           std::string("{% set n = namespace(s=[1]) %}{% for i in range(90) %}"
                       "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}"),
           std::string("{% set n = namespace(s=[1]) %}{% for i in range(9999) %}"
                       "{% set n.s = [n.s] %}{% endfor %}"),
           std::string("{{ 'x' * 999999999999 }}"),
           std::string("{{ range(999999999) }}"),
           std::string("{{ 'a'|map(" + repeat("'map',", 5000) + "'upper')|list }}"),
           std::string("{% set a = 'a' * 9999999 %}{% for i in range(999) %}{{ a in (a ~ 'b') }}"
                       "{% endfor %}"),
       }) {
    const auto text = Render(source);
    EXPECT_FALSE(text.ok()) << source.substr(0, 100);
    EXPECT_EQ(text.status().code(), kInvalid) << text.status();
  }
  const auto invalid = FailsWith(kInvalid, "INVALID_CHAT_TEMPLATE");
  for (const std::string& source :
       {"{{ " + repeat("(", 9999) + "1" + repeat(")", 9999) + " }}",
        "{{ " + repeat("not ", 9999) + "1 }}", "{{ " + repeat("-", 9999) + "1 }}",
        "{{ 1" + repeat("+1", 9999) + " }}", "{{ a" + repeat(".a", 9999) + " }}",
        repeat("{% if 1 %}", 9999) + repeat("{% endif %}", 9999), "{{ " + repeat("[", 9999),
        "{{ 1" + repeat("|abs", 9999) + " }}", "{{ 1" + repeat(" if 1 else 1", 9999) + " }}",
        std::string(2 << 20, 'x')}) {
    EXPECT_THAT(Render(source), invalid) << source.substr(0, 50);
  }
}

constexpr char kGoldens[] = UNIQUANF_SOURCE_DIR "/tests/golden/chat_templates/";

Json ReadJson(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return Json::parse(file, nullptr, /*allow_exceptions=*/false);
}

TEST(ChatTemplateTest, TemplatesOfEveryKindGiveWhatJinja2Gives) {
  const Json cases = ReadJson(absl::StrCat(kGoldens, "cases.json"));
  const Json expected = ReadJson(absl::StrCat(kGoldens, "expected.json"));
  const auto special = cases["special_tokens"].get<std::map<std::string, std::string>>();
  int num_texts = 0;
  for (const auto& [name, source] : cases["templates"].items()) {
    const auto parsed = ChatTemplate::Parse(source.get<std::string>(), special);
    ASSERT_THAT(parsed, IsOk()) << name;
    for (const auto& [key, conversation] : cases["conversations"].items()) {
      ChatOptions options;
      options.add_generation_prompt = conversation.value("add_generation_prompt", false);
      const auto text = (*parsed)->Render(conversation, options);
      const Json& wanted = expected[name][key];
      EXPECT_EQ(text.ok(), wanted.is_string()) << name << " " << key << " " << text.status();
      if (text.ok() && wanted.is_string()) {
        EXPECT_EQ(*text, wanted.get<std::string>()) << name << " " << key;
      }
      ++num_texts;
    }
  }
  EXPECT_GE(num_texts, 100);
}

// The files are others' and not part of this project (scripts/tokenizer_oracle).
TEST(ChatTemplateTest, RealTemplatesGiveWhatTheLibraryGives) {
  const char* directory = std::getenv("UNIQUANF_TOKENIZERS");
  if (directory == nullptr) {
    GTEST_SKIP() << "UNIQUANF_TOKENIZERS names no folder of NAME/tokenizer_config.json files";
  }
  const Json conversations = ReadJson(absl::StrCat(kGoldens, "cases.json"))["conversations"];
  const Json models = ReadJson(absl::StrCat(kGoldens, "models.json"))["models"];
  ASSERT_GE(models.size(), 7u);
  for (const auto& [name, entry] : models.items()) {
    const auto store = *OpenObjectStore(absl::StrCat(directory, "/", name));
    const auto config = ReadTokenizerConfig(store.get());
    ASSERT_THAT(config, IsOk()) << name;
    const auto templates = ReadChatTemplates(store.get(), *config);
    ASSERT_THAT(templates, IsOk()) << name;
    ASSERT_NE(templates->chat, nullptr) << name;
    ASSERT_EQ(Sha256Hex(templates->chat->source()), entry["template_sha256"].get<std::string>());
    for (const auto& [key, conversation] : conversations.items()) {
      ChatOptions options;
      options.add_generation_prompt = conversation.value("add_generation_prompt", false);
      const auto text = templates->For(conversation)->Render(conversation, options);
      const std::string digest = text.ok() ? Sha256Hex(*text).substr(0, 16) : "refused";
      const Json& source = entry["jinja2"].contains(key) ? entry["jinja2"] : entry["texts"];
      EXPECT_EQ(digest, source[key].get<std::string>()) << name << " " << key << text.status();
    }
  }
}

class ModelFilesTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_.path() + "/" + name, std::ios::binary) << bytes;
  }
  absl::StatusOr<ChatTemplates> Read() {
    const auto store = *OpenObjectStore(dir_.path());
    const auto config = ReadTokenizerConfig(store.get());
    if (!config.ok()) return config.status();
    return ReadChatTemplates(store.get(), *config);
  }
  TempDir dir_;
};

TEST_F(ModelFilesTest, TheTemplateComesFromTheFileThatCounts) {
  ASSERT_THAT(Read(), IsOk());
  EXPECT_EQ(Read()->chat, nullptr);
  Write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(Read()->chat->source(), "processor");
  Write("tokenizer_config.json", R"({"chat_template": "{{ bos_token }}config",
      "bos_token": {"content": "<b>"}})");
  ASSERT_THAT(Read(), IsOk());
  EXPECT_EQ(Read()->chat->Render(Json::array(), {}).value_or(""), "<b>config");
  Write("chat_template.jinja", "file");
  EXPECT_EQ(Read()->chat->source(), "file");
}

TEST_F(ModelFilesTest, ATemplateOfItsOwnForTools) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "plain"},
      {"name": "tool_use", "template": "with tools"}, {"name": "rag", "template": "{% broken"}]})");
  const auto templates = Read();
  ASSERT_THAT(templates, IsOk());
  EXPECT_EQ(templates->For(Json::parse(R"({"messages": []})"))->source(), "plain");
  EXPECT_EQ(templates->For(Json::parse(R"({"messages": [], "tools": []})"))->source(), "plain");
  EXPECT_EQ(templates->For(Json::parse(R"({"messages": [], "tools": [{}]})"))->source(),
            "with tools");
}

TEST_F(ModelFilesTest, DamagedFilesAreRefused) {
  Write("tokenizer_config.json", "[]");
  EXPECT_THAT(Read(), FailsWith(kInvalid, "INVALID_TOKENIZER"));
  Write("tokenizer_config.json", R"({"chat_template": "{% if %}"})");
  EXPECT_THAT(Read(), FailsWith(kInvalid, "INVALID_CHAT_TEMPLATE"));
}

}  // namespace
}  // namespace uniquanf
