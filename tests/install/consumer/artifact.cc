#include <cstdio>

#include "common/artifact/artifact_reader.h"
#include "common/base/status.h"
#include "common/object_store/object_store.h"

int main(int, char** argv) {
  const auto store = uniquanf::OpenObjectStore(argv[1]);
  if (!store.ok()) return 1;
  const auto reader = uniquanf::ArtifactReader::Open(*store);
  if (!reader.ok()) {
    std::puts(uniquanf::ErrorReason(reader.status()).c_str());
    return 0;
  }
  for (const auto& module : (*reader)->manifest().modules) {
    std::printf("%s %d bits\n", module.name.c_str(), module.bits);
  }
}
