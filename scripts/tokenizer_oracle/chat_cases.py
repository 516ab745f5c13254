"""The chat templates and conversations that the template engine is compared on, all our own: each template
has the constructs of a family of published ones. `python3 chat_cases.py OUTPUT_DIR` writes cases.json and what
Jinja2 makes of them, in the environment that transformers sets, as expected.json. With NAME=tokenizer_config.json
... behind, models.json (make_chat_models.mjs) gets Jinja2's digests where they are others than npm's."""
import datetime
import hashlib
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

TEMPLATES = {
    # Tools before the system text, tool results grouped in one turn.
    "turns_with_tools": """{%- if tools %}
    {{- '<|turn|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|turn|>system\\n' + messages[0].content + '<|end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not message.content.startswith('<result>') %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
        {%- for part in message.content or [] %}
            {%- if part.type == 'text' %}{%- set content = part.text %}{{- part.text }}{%- endif %}
        {%- endfor %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|turn|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<|turn|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|turn|>assistant\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '\\n<call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|turn|>user' }}
        {%- endif %}
        {{- '\\n<result>\\n' }}
        {{- content }}
        {{- '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    # Alternation is checked; the last user turn gets the system text.
    "alternating": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}
{%- for message in rest | rejectattr("role", "equalto", "tool") | list %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system is defined %}
            {{- "[INST] " + system + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}""",
    # Parts of content, roles renamed.
    "parts": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start>' + role + '
' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start>model
'}}
{%- endif -%}
""",
    # Headers with a date, tools as indented JSON within the first user turn.
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|header|>system<|/header|>\\n\\nToday Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- if tools is not none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|header|>user<|/header|>\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|header|>assistant<|/header|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|header|>ipython<|/header|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
""",
    # Macros that call themselves over a schema, keyword defaults, dictionaries in order.
    "schema_macros": """{%- macro render_type(spec, required=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- if spec['items']['type'] == "object" -%}{{- "any[]" }}
            {%- else -%}{{- render_type(spec['items'], required) + "[]" }}{%- endif -%}
        {%- else -%}any[]{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping -%}
        {{- spec.type | join(" | ") }}
    {%- elif spec.oneOf -%}
        {%- for variant in spec.oneOf -%}
            {{- render_type(variant) -}}{%- if not loop.last %}{{- " | " }}{% endif -%}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{- '"' + spec.enum|join('" | "') + '"' -}}{%- else -%}string{%- endif -%}
    {%- elif spec.type == "integer" or spec.type == "number" -%}number
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
            {{- "{\\n" }}
            {%- for name, prop in spec.properties.items() -%}
                {{- name }}{%- if name not in (spec.required or []) -%}{{- "?" }}{%- endif -%}{{- ": " }}
                {{- render_type(prop, name in (spec.required or [])) }}
                {%- if prop.default is defined %}{{- " // default: " ~ prop.default }}{%- endif %}
                {%- if not loop.last %}{{- ",\\n" }}{% endif -%}
            {%- endfor -%}
            {{- "\\n}" }}
        {%- else -%}object{%- endif -%}
    {%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] %}
{%- set tool = tool.function %}
// {{ tool.description|default('no description', true) }}
type {{ tool.name }} = (_: {{ render_type(tool.parameters) }}) => any;
{% endfor %}
{%- for message in messages %}
<|start|>{{ message.role }}{% if message.name is defined %} to={{ message.name }}{% endif %}<|message|>
{%- if message.content is string %}{{ message.content }}{% else %}{{ message.content|tojson }}{% endif %}<|end|>
{% endfor %}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}
""",
    # Loops with conditions, neighbours, break and continue, filters as blocks, call blocks.
    "loops": """{% macro box(title) %}[{{ title|upper }}: {{ caller()|trim }}]{% endmacro %}
{% for message in messages if message.role != 'tool' %}
{% if message.role == 'system' %}{% continue %}{% endif %}
{{ loop.index }}/{{ loop.length }} {{ loop.revindex0 }} {{ message.role|capitalize }}
{%- if loop.previtem is defined %} after {{ loop.previtem.role }}{% endif %}
{%- if loop.nextitem is defined %} before {{ loop.nextitem.role }}{% endif %}:
{% call box(message.role) %} {{ message.content|string|replace('\\n', ' ')|indent(2) }} {% endcall %}
{% filter trim %}   {{ message.content|length }}   {% endfilter %}
{% if loop.index >= 3 %}{% break %}{% endif %}
{% else %}
nothing
{% endfor %}
{{ messages|map(attribute='role')|unique|join(', ') }} {{ messages|selectattr('role', 'in', ['user', 'tool'])|list|length }}
{{ messages|map(attribute='content')|select('string')|map('length')|sum }} {{ messages[-1].role|title }}
{% set ns = namespace(total=0, seen={}) %}{% for m in messages %}{% set ns.total = ns.total + (m.content|length if m.content else 0) %}{% endfor %}{{ ns.total }}
{{ (messages|first).keys()|list }} {{ {'a': [1, 2.5, none, true], "b'": 'x"y'} }} {{ ('x',) + ('y', "it's") }}
{{ '%s' if false else 'p' }} {{ 10 // 3 }} {{ -10 // 3 }} {{ 10 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 1.0 }} {{ 1e20 }} {{ 3 * '-' }}
{{- '  keep  ' -}}
{% generation %}{{ messages[0].content[:5] if messages[0].content is string }}{% endgeneration %}
{# a comment
   of two lines #}
tail
""",
    # Whitespace in every place.
    "whitespace": """  {% if true %}
  a
  {%- endif %}
	{% for m in messages %}
	  {{ m.role }}
	{% endfor %}
 x {% if false %} y {% endif %} z
  {#- c -#}
  {{ '\\n' }}
  {%+ if true %} plus {% endif +%}
  end {{- ' joined ' -}} up

{% raw %}
  {{ not run }} {% if %}
{% endraw %}


last line

""",
}

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Gets the weather & \"more\" <b>",
     "parameters": {"type": "object", "properties": {
         "city": {"type": "string", "description": "Where, e.g. Zürich"},
         "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
         "days": {"type": "array", "items": {"type": "integer"}},
         "where": {"oneOf": [{"type": "string"}, {"type": "number"}]},
         "any": {"type": ["string", "null"]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "noop", "parameters": {"type": "object", "properties": {}}}},
]
USER = {"role": "user", "content": "Hello, how are you?\nSecond line."}
ASSISTANT = {"role": "assistant", "content": "  I'm well — danke!  "}
SYSTEM = {"role": "system", "content": "You are \"terse\". 你好 🙂"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "abcdefghi",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "x": 1.5, "y": None, "z": True}}}]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"t\": 21.5}"}

CONVERSATIONS = {
    "user": {"messages": [USER]},
    "prompt": {"messages": [USER], "add_generation_prompt": True},
    "system": {"messages": [SYSTEM, USER], "add_generation_prompt": True},
    "turns": {"messages": [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "And <|im_end|> now?"}], "add_generation_prompt": True},
    "finished": {"messages": [USER, ASSISTANT, USER, ASSISTANT]},
    "broken": {"messages": [USER, USER, ASSISTANT]},
    "answer_first": {"messages": [ASSISTANT, USER]},
    "tools": {"messages": [SYSTEM, USER], "tools": TOOLS, "add_generation_prompt": True},
    "called": {"messages": [USER, CALL, RESULT, ASSISTANT, USER], "tools": TOOLS, "add_generation_prompt": True},
    "two_results": {"messages": [USER, CALL, RESULT, RESULT], "tools": TOOLS},
    "thought": {"messages": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, USER,
                             {"role": "assistant", "content": "<think>more</think>No."}]},
    "no_thinking": {"messages": [USER], "add_generation_prompt": True, "enable_thinking": False},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": " one "}, {"type": "image"}, {"type": "text", "text": "two"}]}, ASSISTANT]},
    "empty": {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]},
    "null": {"messages": [{"role": "user", "content": None}]},
    "none": {"messages": []},
    "odd_role": {"messages": [{"role": "narrator", "content": "Once"}, USER]},
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
NOW = datetime.datetime(2025, 1, 1, 12, tzinfo=datetime.timezone.utc)  # as in calibration


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(source, conversation, special):
    """The text, or None where the template refuses or fails."""
    variables = {"tools": None, "documents": None, "add_generation_prompt": False, **special, **conversation}
    try:
        return environment().from_string(source).render(**variables)
    except (jinja2.exceptions.TemplateError, TypeError, ValueError):
        return None


def model_digests(path):
    """Of a model's templates on every conversation."""
    config = json.loads(pathlib.Path(path).read_text())
    special = {name: value if isinstance(value, str) else value["content"] for name, value in config.items()
               if name.endswith("_token") and (isinstance(value, str) or isinstance(value, dict) and "content" in value)}
    default = tools = config["chat_template"]
    if isinstance(default, list):
        named = {entry["name"]: entry["template"] for entry in default}
        default, tools = named["default"], named.get("tool_use", named["default"])
    digests = {}
    for key, conversation in CONVERSATIONS.items():
        text = render(tools if conversation.get("tools") else default, conversation, special)
        digests[key] = "refused" if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
    return digests


def main():
    out = pathlib.Path(sys.argv[1])
    cases = {"special_tokens": SPECIAL, "templates": TEMPLATES, "conversations": CONVERSATIONS}
    (out / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")
    expected = {name: {key: render(source, conversation, SPECIAL) for key, conversation in CONVERSATIONS.items()}
                for name, source in TEMPLATES.items()}
    (out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
    texts = [text for row in expected.values() for text in row.values()]
    if len(sys.argv) > 2:
        models = json.loads((out / "models.json").read_text())
        for name, path in (argument.split("=") for argument in sys.argv[2:]):
            entry = models["models"][name]
            entry["jinja2"] = {key: digest for key, digest in model_digests(path).items() if digest != entry["texts"][key]}
        (out / "models.json").write_text(json.dumps(models, indent=1) + "\n")
    print(f"{len(texts)} texts, {sum(text is None for text in texts)} refusals")


if __name__ == "__main__":
    main()
