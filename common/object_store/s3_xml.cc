#include "common/object_store/s3_xml.h"

#include <expat.h>

#include <memory>
#include <type_traits>
#include <utility>

#include "absl/strings/str_replace.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxDepth = 16;
constexpr int kMaxElements = 100000;  // a page of 1,000 uploads has about 12,000

struct ParseState {
  XML_Parser parser = nullptr;
  XmlElement root;
  // Open elements by value: pointers into vectors that grow would dangle.
  std::vector<XmlElement> open;
  int num_elements = 0;
  bool refused = false;

  void Refuse() {
    refused = true;
    XML_StopParser(parser, XML_FALSE);
  }
};

void OnStart(void* data, const XML_Char* name, const XML_Char** /*attributes*/) {
  auto* state = static_cast<ParseState*>(data);
  if (state->open.size() >= kMaxDepth || ++state->num_elements > kMaxElements) {
    return state->Refuse();
  }
  const absl::string_view qualified(name);
  const size_t colon = qualified.rfind(':');
  XmlElement element;
  element.name = std::string(colon == qualified.npos ? qualified : qualified.substr(colon + 1));
  state->open.push_back(std::move(element));
}

void OnEnd(void* data, const XML_Char* /*name*/) {
  auto* state = static_cast<ParseState*>(data);
  if (state->open.empty()) return;
  XmlElement element = std::move(state->open.back());
  state->open.pop_back();
  if (state->open.empty()) {
    state->root = std::move(element);
  } else {
    state->open.back().children.push_back(std::move(element));
  }
}

void OnText(void* data, const XML_Char* text, int length) {
  auto* state = static_cast<ParseState*>(data);
  if (!state->open.empty()) state->open.back().text.append(text, static_cast<size_t>(length));
}

void OnDoctype(void* data, const XML_Char*, const XML_Char*, const XML_Char*, int) {
  static_cast<ParseState*>(data)->Refuse();
}

}  // namespace

const XmlElement* XmlElement::Find(absl::string_view child_name) const {
  for (const XmlElement& child : children) {
    if (child.name == child_name) return &child;
  }
  return nullptr;
}

absl::string_view XmlElement::Text(absl::string_view child_name) const {
  const XmlElement* child = Find(child_name);
  return child == nullptr ? absl::string_view() : absl::string_view(child->text);
}

absl::StatusOr<XmlElement> ParseXml(absl::string_view document) {
  std::unique_ptr<std::remove_pointer_t<XML_Parser>, decltype(&XML_ParserFree)> parser(
      XML_ParserCreate(nullptr), &XML_ParserFree);
  if (parser == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "no XML parser");
  }
  ParseState state;
  state.parser = parser.get();
  XML_SetUserData(parser.get(), &state);
  XML_SetElementHandler(parser.get(), &OnStart, &OnEnd);
  XML_SetCharacterDataHandler(parser.get(), &OnText);
  XML_SetStartDoctypeDeclHandler(parser.get(), &OnDoctype);
  const bool parsed = document.size() <= (64u << 20) &&
                      XML_Parse(parser.get(), document.data(), static_cast<int>(document.size()),
                                1) == XML_STATUS_OK;
  if (!parsed || state.refused || state.root.name.empty()) {
    return InvalidInput("INVALID_XML", "the response is not an XML document of the expected kind");
  }
  return std::move(state.root);
}

std::string XmlEscape(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&apos;"}});
}

}  // namespace uniquanf
