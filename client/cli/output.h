// The CLI's output: JSON documents whose members never change their meaning (README.md), and tables
// and reports for people. Thread safety: free functions that write standard output.
#ifndef UNIQUANF_CLIENT_CLI_OUTPUT_H_
#define UNIQUANF_CLIENT_CLI_OUTPUT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/include/uniquanf/client.h"

namespace uniquanf::cli {

// Every member is always there; what is unknown is null. Times are RFC 3339 in UTC, durations
// numbers of seconds.
nlohmann::ordered_json ToJson(const Job& job);
nlohmann::ordered_json ToJson(const Task& task);
nlohmann::ordered_json ToJson(const Worker& worker);
nlohmann::ordered_json ToJson(const ServerInfo& info);

// One document, indented.
void PrintJson(const nlohmann::ordered_json& document);
// The same as YAML, and its names alone: of the document, or of the members of its list.
void PrintYaml(const nlohmann::ordered_json& document);
void PrintNames(const nlohmann::ordered_json& document);
// One line, flushed: for streams of documents.
void PrintJsonLine(const nlohmann::ordered_json& document);

struct Column {
  const char* heading;
  enum Kind { kText, kNumber, kLong } kind = kText;  // kLong: cut where the terminal is too narrow
};
// Lines under a heading, columns padded to their widest cell. `width`: of the terminal, on
// which the last columns are left out where nothing can be cut; 0: no limit.
std::vector<std::string> TableLines(const std::vector<Column>& columns,
                                    std::vector<std::vector<std::string>> rows, int width);
// The same on standard output, as wide as its terminal.
void PrintTable(const std::vector<Column>& columns, std::vector<std::vector<std::string>> rows);
// Columns of the terminal that standard output is; 0 where it is none.
int TerminalWidth();

// `text` of somebody else's as it may stand on a terminal (common/base/printable.h).
std::string Printable(absl::string_view text);
std::string FormatLocalTime(absl::Time time);      // "2026-01-31 12:34:56", "-" when unknown
std::string ShortJobName(absl::string_view name);  // without "jobs/"

// "25.23 -> 29.12 (+15.4%)", or "".
std::string ShortPerplexity(const Job& job);
// What keeps it from getting on, or ended it: one line, or "".
std::string WhyNot(const Job& job);

// Whether a retry of a failed or cancelled job can help, in a sentence with the command.
std::string RetryAdvice(const Job& job);

// Everything about a job, and the report when it has one.
void PrintJob(const Job& job);
// Perplexity, sizes, layers, the artifact's place; or the error.
void PrintReport(const Job& job);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_OUTPUT_H_
