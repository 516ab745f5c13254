// The gRPC port's bounds, on real sockets.
#include "common/rpc/guarded_listener.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/health_check.h"
#include "tests/support/socket_util.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr absl::string_view kPreface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);

TEST(ConnectionLimitsTest, StayBelowWhatTheProcessMayOpen) {
  EXPECT_EQ(ResolveConnectionLimits(0, 0, 1024).max_connections, 928);
  EXPECT_EQ(ResolveConnectionLimits(0, 0, 1024).max_per_peer, 464);
  EXPECT_EQ(ResolveConnectionLimits(5000, 0, 1024).max_connections, 928);
  EXPECT_EQ(ResolveConnectionLimits(100, 7, 1024).max_connections, 100);
  EXPECT_EQ(ResolveConnectionLimits(100, 7, 1024).max_per_peer, 7);
  EXPECT_EQ(ResolveConnectionLimits(0, 0, 1 << 20).max_connections, 8192);
  EXPECT_GT(ResolveConnectionLimits(0, 0, 64).max_connections, 0);
}

class GuardedListenerTest : public ::testing::Test {
 protected:
  void Start(const ConnectionLimits& limits, const std::string& listen = "127.0.0.1:0") {
    auto listener = GuardedListener::Bind(listen, limits);
    ASSERT_THAT(listener, IsOk());
    listener_ = *std::move(listener);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(&service_);
    listener_->AddTo(&builder, grpc::InsecureServerCredentials());
    server_ = builder.BuildAndStart();
    listener_->Start();
    address_ = absl::StrCat("127.0.0.1:", listener_->port());
  }
  ~GuardedListenerTest() override {
    for (const int fd : connections_) close(fd);
    if (listener_ != nullptr) listener_->Stop();
    if (server_ != nullptr) server_->Shutdown();
  }
  // An HTTP/2 connection that then does nothing.
  int Connect() {
    const int fd = ConnectTo(address_);
    if (fd < 0) return -1;
    connections_.push_back(fd);
    send(fd, kPreface.data(), kPreface.size(), MSG_NOSIGNAL);
    return fd;
  }
  // Whether the server speaks to it, rather than resetting it.
  static bool IsServed(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) == 1;
  }
  absl::Status Check() {
    const auto channel = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    return CheckHealth(channel, kTimeout);
  }
  template <typename Condition>
  static bool Eventually(const Condition& condition) {
    const absl::Time end = absl::Now() + kTimeout;
    while (!condition() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(10));
    return condition();
  }

  std::unique_ptr<GuardedListener> listener_;
  grpc::CallbackGenericService service_;  // gRPC does not serve without any
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::vector<int> connections_;
};

TEST_F(GuardedListenerTest, ServesCallsAndReportsTheirConnections) {
  Start({});
  EXPECT_THAT(Check(), IsOk());
  EXPECT_GE(listener_->counts().num_accepted, 1);
  EXPECT_TRUE(Eventually([&] { return listener_->counts().num_open == 0; }));
}

TEST_F(GuardedListenerTest, EveryAddressIncludesItsOwn) {
  Start({}, "0.0.0.0:0");
  EXPECT_THAT(Check(), IsOk());
  const auto self = listener_->ConnectToSelf();
  ASSERT_THAT(self, IsOk());
  EXPECT_THAT(CheckHealth(*self, kTimeout), IsOk());
}

TEST_F(GuardedListenerTest, OnePeerGetsItsShareAndNoMore) {
  Start({.max_connections = 100, .max_per_peer = 3});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(IsServed(Connect())) << i;
  EXPECT_FALSE(IsServed(Connect()));
  EXPECT_EQ(listener_->counts().num_refused_peer, 1);
}

TEST_F(GuardedListenerTest, AFullPortServesAgainWhenConnectionsClose) {
  Start({.max_connections = 2, .max_per_peer = 10});
  EXPECT_TRUE(IsServed(Connect()));
  EXPECT_TRUE(IsServed(Connect()));
  EXPECT_FALSE(IsServed(Connect()));
  EXPECT_EQ(listener_->counts().num_refused_total, 1);
  // The check of itself is not what fills it, nor kept out.
  const auto self = listener_->ConnectToSelf();
  ASSERT_THAT(self, IsOk());
  EXPECT_THAT(CheckHealth(*self, kTimeout), IsOk());
  for (const int fd : connections_) close(fd);
  connections_.clear();
  EXPECT_THAT(Check(), IsOk());
}

TEST_F(GuardedListenerTest, ATakenPortAndNonsenseAreRefused) {
  Start({});
  EXPECT_THAT(GuardedListener::Bind(address_, {}),
              FailsWith(absl::StatusCode::kUnavailable, "LISTEN_FAILED"));
  for (const char* listen : {"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1"}) {
    EXPECT_THAT(GuardedListener::Bind(listen, {}),
                FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_LISTEN"))
        << listen;
  }
}

}  // namespace
}  // namespace uniquanf
