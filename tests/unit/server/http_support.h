// A server with an HTTP address, and who calls it.
#ifndef UNIQUANF_TESTS_UNIT_SERVER_HTTP_SUPPORT_H_
#define UNIQUANF_TESTS_UNIT_SERVER_HTTP_SUPPORT_H_

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/rpc/channel.h"
#include "server/service/server_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf::server {

// On loopback, without identities.
class HttpTest : public ::testing::Test {
 protected:
  HttpTest() : ids_(NewSeededIdGenerator(1)) {}
  void StartServer(ServerProcessOptions options) {
    options.listen = options.http_listen = "127.0.0.1:0";
    options.object_root = "file://" + dir_.File("objects");
    options.shutdown_timeout = absl::Seconds(1);
    server_ = std::make_unique<ServerProcess>(std::move(options),
                                              NewSqliteStore(dir_.File("state.sqlite")),
                                              &SystemClock(), ids_.get(), nullptr, nullptr);
    const absl::Status started = server_->Start();
    ASSERT_THAT(started, IsOk());
  }
  std::unique_ptr<httplib::Client> Http() const {
    auto client =
        std::make_unique<httplib::Client>(absl::StrCat("http://127.0.0.1:", server_->http_port()));
    client->set_read_timeout(20);
    return client;
  }

  TempDir dir_;
  const std::unique_ptr<IdGenerator> ids_;
  std::unique_ptr<ServerProcess> server_;
};

inline nlohmann::json SpecJson() {
  return {{"model_uri", "file:///models/tiny"},
          {"calibration_uri", "file:///data/calibration.safetensors"},
          {"bits", 3}};
}

}  // namespace uniquanf::server

#endif  // UNIQUANF_TESTS_UNIT_SERVER_HTTP_SUPPORT_H_
