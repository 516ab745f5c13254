#include <cstdio>

#include "common/object_store/object_store.h"
#include "worker/backend/backend.h"
#include "worker/model/model_config.h"
#include "worker/task/task_runner.h"

int main(int, char** argv) {
  const auto store = uniquanf::OpenObjectStore(argv[1]);
  if (!store.ok()) return 1;
  const auto json = (*store)->Read("config.json", 1 << 20);
  if (!json.ok()) return 1;
  const auto config = uniquanf::ParseModelConfig(*json);
  if (!config.ok()) return 1;
  std::printf("%d layers, %zu linear layers each\n", config->num_layers,
              config->ModuleNames(0).size());
  const auto cache = uniquanf::NewActivationCache();
  return cache->CachedLayer("").has_value() ? 1 : 0;
}
