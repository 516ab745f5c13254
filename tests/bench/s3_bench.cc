// Throughput and latency of an object store: s3_bench URI [MEGABYTES]. With s3://, set the
// environment that common/object_store/s3_config.h lists; scripts/s3-server.sh starts a local
// server. Prints one line per measurement; leaves nothing in the store.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/digest.h"
#include "common/object_store/object_store.h"

namespace {

using uniquanf::ObjectStore;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

double Seconds(const std::function<void()>& work) {
  const absl::Time start = absl::Now();
  work();
  return absl::ToDoubleSeconds(absl::Now() - start);
}

// Calls `work(i)` for i < count from `num_threads` threads.
void Parallel(int num_threads, size_t count, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t) {
    threads.emplace_back([&] {
      for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) work(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void Latencies(const char* name, int count, const std::function<void(int)>& work) {
  std::vector<double> ms;
  for (int i = 0; i < count; ++i) ms.push_back(1e3 * Seconds([&] { work(i); }));
  std::sort(ms.begin(), ms.end());
  std::printf("%-28s p50 %7.2f ms   p99 %7.2f ms\n", name, ms[ms.size() / 2],
              ms[ms.size() * 99 / 100]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: s3_bench URI [MEGABYTES]\n");
    return 2;
  }
  const size_t megabytes = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 256;
  auto opened = uniquanf::OpenObjectStore(argv[1]);
  Check(opened.status());
  ObjectStore& store = **opened;
  std::string data(megabytes << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>((i * 2654435761u) >> 11);

  const double put = Seconds([&] { Check(store.Write("bench/large", data)); });
  std::printf("%-28s %8.0f MB/s\n", "write, one stream", megabytes / put);
  constexpr size_t kChunk = 8 << 20;
  std::string back(data.size(), '\0');
  for (const int num_threads : {1, 2, 4, 8}) {
    const double get = Seconds([&] {
      Parallel(num_threads, (data.size() + kChunk - 1) / kChunk, [&](size_t i) {
        const size_t at = i * kChunk;
        Check(
            store.ReadAt("bench/large", at, std::min(kChunk, data.size() - at), back.data() + at));
      });
    });
    std::printf("%-28s %8.0f MB/s\n",
                absl::StrCat("read, 8 MiB ranges, ", num_threads, " threads").c_str(),
                megabytes / get);
  }
  if (back != data) {
    std::fprintf(stderr, "the bytes read are not those written\n");
    return 1;
  }
  const std::string small(4096, 's');
  constexpr int kSmall = 300;
  const auto key = [](int i) { return absl::StrCat("bench/small/", i); };
  Latencies("write 4 KiB", kSmall, [&](int i) { Check(store.Write(key(i), small)); });
  Latencies("read 4 KiB", kSmall, [&](int i) { Check(store.Read(key(i), 4096).status()); });
  Latencies("stat", kSmall, [&](int i) { Check(store.Stat(key(i)).status()); });
  uniquanf::ListOptions list;
  list.prefix = "bench/small/";
  Latencies("list 300", 20, [&](int) { Check(store.List(list).status()); });
  Latencies("delete", kSmall, [&](int i) { Check(store.Delete(key(i))); });
  Check(store.Delete("bench/large"));
  return 0;
}
