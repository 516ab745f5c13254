// Tokenizing on one core: megabytes of text a second, whole files as calibration reads them.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>

#include "tests/bench/bench_support.h"
#include "worker/text/tokenizer.h"

namespace uniquanf::bench {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

// Of processor time, so that what else runs does not count.
double Seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// At ends of lines, about `size` bytes each: documents.
std::vector<std::string> Documents(const std::string& text, size_t size) {
  std::vector<std::string> documents;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start + size), text.size() - 1) + 1;
    documents.push_back(text.substr(start, end - start));
    start = end;
  }
  return documents;
}

int Run(int argc, char** argv) {
  const Flags flags(argc, argv,
                    "Megabytes of text that one core tokenizes in a second of processor time: the "
                    "first pass, which knows no word, and the best of some more.",
                    {{"tokenizer", "a tokenizer.json (examples/tiny/tokenizer.json)"},
                     {"text", "UTF-8 text (examples/text/start.txt)"},
                     {"document-bytes", "the text is cut into documents of about this size (4096)"},
                     {"rounds", "rounds, the best of which counts (5)"}});
  const std::string json = ReadAll(flags.Text("tokenizer", "examples/tiny/tokenizer.json"));
  const std::string text = ReadAll(flags.Text("text", "examples/text/start.txt"));
  const std::vector<std::string> documents =
      Documents(text, static_cast<size_t>(flags.Number("document-bytes", 4096)));
  double start = Seconds();
  const std::unique_ptr<const Tokenizer> tokenizer = Take(Tokenizer::Create(json));
  std::printf("opened in %.2f s\n", Seconds() - start);
  TokenizerScratch scratch;
  double first = 0, best = 0;
  size_t num_ids = 0;
  for (int64_t round = 0; round <= flags.Number("rounds", 5); ++round) {
    std::vector<int32_t> ids;
    start = Seconds();
    for (const std::string& document : documents) {
      Check(tokenizer->Encode(document, {}, &scratch, &ids));
    }
    const double rate = static_cast<double>(text.size()) / 1e6 / (Seconds() - start);
    if (round == 0) first = rate;
    if (round > 0) best = std::max(best, rate);
    num_ids = ids.size();
  }
  std::printf("ours: first pass %.2f MB/s, then %.2f MB/s (%zu ids of %.2f MB)\n", first, best,
              num_ids, static_cast<double>(text.size()) / 1e6);
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Run(argc, argv); }
