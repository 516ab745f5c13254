// Channels to servers that come and go behind one name. The lookup is the test's own; servers and
// connections are real.
#include "common/rpc/channel_source.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/support/status_matchers.h"
#include "uniquanf/v1/admin_service.grpc.pb.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr absl::Duration kSoon = absl::Milliseconds(10);

// Says who it is, or that it stands by.
class NamedServer final : public v1::AdminService::Service {
 public:
  explicit NamedServer(const std::string& name, bool active = true) : name_(name) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    SetActive(active);
  }
  ~NamedServer() override { server_->Shutdown(absl::ToChronoTime(absl::Now())); }

  void SetActive(bool active) {
    active_ = active;
    server_->GetHealthCheckService()->SetServingStatus(active);
  }
  ServerAddress address() const { return {absl::StrCat("127.0.0.1:", port_), false}; }

 private:
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::ServerInfo* info) override {
    if (!active_) return {grpc::StatusCode::UNAVAILABLE, "stands by"};
    info->set_version(name_);
    return grpc::Status::OK;
  }

  const std::string name_;
  int port_ = 0;
  std::atomic<bool> active_{true};
  std::unique_ptr<grpc::Server> server_;
};

class ChannelSourceTest : public ::testing::Test {
 protected:
  ChannelSourceTest() {
    options_.lookup = [names = names_](const HostPort& server) {
      EXPECT_EQ(server.ToString(), "servers.test:50051");
      absl::MutexLock lock(&names->mutex);
      ++names->num_lookups;
      return names->addresses;
    };
    options_.lookup_period = absl::Hours(1);  // it is asked for
    options_.min_lookup_gap = kSoon;
    options_.channel.max_reconnect_backoff = absl::Milliseconds(200);
    options_.note = [names = names_](NoteLevel level, const std::string& text) {
      absl::MutexLock lock(&names->mutex);
      if (level == NoteLevel::kWarning) names->warnings.push_back(text);
    };
  }

  void SetAddresses(std::vector<ServerAddress> addresses) {
    absl::MutexLock lock(&names_->mutex);
    names_->addresses = std::move(addresses);
  }
  std::unique_ptr<ChannelSource> Make() {
    auto source = ChannelSource::Make("servers.test:50051", options_);
    EXPECT_OK(source);
    return *std::move(source);
  }
  bool WaitForLookups(int num) {
    const auto enough = [this, num]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(names_->mutex) {
      return names_->num_lookups >= num;
    };
    absl::MutexLock lock(&names_->mutex);
    return names_->mutex.AwaitWithTimeout(absl::Condition(&enough), kPatience);
  }
  bool LookAgain(ChannelSource* source, int num_times) {
    for (int i = 0; i < num_times; ++i) {
      int num = 0;
      {
        absl::MutexLock lock(&names_->mutex);
        num = names_->num_lookups;
      }
      source->Refresh();
      if (!WaitForLookups(num + 1)) return false;
    }
    return true;
  }
  // Who answers, "" when nobody does.
  static std::string Ask(ChannelSource* source) {
    v1::AdminService::Stub stub(source->Get(kPatience));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    v1::ServerInfo info;
    const grpc::Status status = stub.GetServerInfo(&context, {}, &info);
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::UNAVAILABLE)
        << status.error_message();
    return info.version();
  }
  // As a caller tries: after each failure it says so.
  static std::string AskUntilAnswered(ChannelSource* source) {
    const absl::Time end = absl::Now() + kPatience;
    while (true) {
      const std::string who = Ask(source);
      if (!who.empty() || absl::Now() > end) return who;
      source->Refresh();
      absl::SleepFor(kSoon);
    }
  }

  // Outlives a lookup that goes on after the end of its source.
  struct Names {
    absl::Mutex mutex;
    std::vector<ServerAddress> addresses ABSL_GUARDED_BY(mutex);
    int num_lookups ABSL_GUARDED_BY(mutex) = 0;
    std::vector<std::string> warnings ABSL_GUARDED_BY(mutex);
  };
  const std::shared_ptr<Names> names_ = std::make_shared<Names>();
  ChannelSourceOptions options_;
};

TEST_F(ChannelSourceTest, GoesOnAtTheServerThatTookThePlaceOfAnother) {
  auto first = std::make_unique<NamedServer>("first");
  NamedServer second("second");
  SetAddresses({first->address()});
  const auto source = Make();
  EXPECT_EQ(Ask(source.get()), "first");
  EXPECT_FALSE(source->several());
  SetAddresses({second.address()});
  first.reset();
  EXPECT_EQ(AskUntilAnswered(source.get()), "second");
  EXPECT_TRUE(source->several());
}

// Its one address belongs to a standby now.
TEST_F(ChannelSourceTest, AStandbysAnswerLeadsToTheNextAddress) {
  NamedServer first("first"), second("second", /*active=*/false);
  SetAddresses({first.address()});
  const auto source = Make();
  EXPECT_EQ(Ask(source.get()), "first");
  SetAddresses({first.address(), second.address()});
  first.SetActive(false);
  second.SetActive(true);
  EXPECT_EQ(AskUntilAnswered(source.get()), "second");
}

TEST_F(ChannelSourceTest, OfSeveralAddressesOnlyTheServingOneGetsCalls) {
  NamedServer standby("standby", /*active=*/false), active("active");
  SetAddresses({standby.address(), active.address()});
  const auto source = Make();
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Ask(source.get()), "active") << i;
  standby.SetActive(true);
  active.SetActive(false);
  EXPECT_EQ(AskUntilAnswered(source.get()), "standby");
}

TEST_F(ChannelSourceTest, LooksAgainByItselfEveryPeriod) {
  options_.lookup_period = kSoon;
  NamedServer first("first");
  SetAddresses({first.address()});
  const auto source = Make();
  EXPECT_TRUE(WaitForLookups(5));
}

TEST_F(ChannelSourceTest, WhileNobodyKnowsTheNameTheLastAddressesStand) {
  NamedServer first("first");
  SetAddresses({first.address()});
  const auto source = Make();
  const auto channel = source->Get(kPatience);
  SetAddresses({});
  source->Refresh();
  const auto warned = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(names_->mutex) {
    return !names_->warnings.empty();
  };
  {
    absl::MutexLock lock(&names_->mutex);
    EXPECT_TRUE(names_->mutex.AwaitWithTimeout(absl::Condition(&warned), kPatience));
    EXPECT_THAT(names_->warnings, ElementsAre(HasSubstr("servers.test:50051")));
  }
  EXPECT_EQ(source->Get(absl::ZeroDuration()), channel);
  EXPECT_EQ(Ask(source.get()), "first");
}

TEST_F(ChannelSourceTest, TheSameAddressesInAnotherOrderAreNoChange) {
  NamedServer first("first"), second("second", false);
  SetAddresses({first.address(), second.address()});
  const auto source = Make();
  const auto channel = source->Get(kPatience);
  SetAddresses({second.address(), first.address()});
  ASSERT_TRUE(LookAgain(source.get(), 3));
  EXPECT_EQ(source->Get(absl::ZeroDuration()), channel);
}

// Name servers that are silent: calls have a channel all the same, and the end waits for nothing.
TEST_F(ChannelSourceTest, ALookupThatHangsHoldsUpNobody) {
  const auto let_go = std::make_shared<absl::Notification>();
  const auto hangs = std::make_shared<absl::Notification>();
  options_.lookup = [let_go, hangs](const HostPort&) {
    hangs->Notify();
    let_go->WaitForNotification();
    return std::vector<ServerAddress>();
  };
  {
    const auto source = Make();
    hangs->WaitForNotification();
    EXPECT_NE(source->Get(kSoon), nullptr);
    source->Refresh();
  }
  let_go->Notify();
}

TEST(ServerNamesTest, OnlyNamesAreLookedUp) {
  for (const char* target : {"127.0.0.1:50051", "[::1]:50051", "::1", "unix:/run/socket", "name",
                             "dns://1.1.1.1/name:5", "ipv4:10.0.0.1:5", "name:port"}) {
    EXPECT_THAT(ParseServers(target).value(), IsEmpty()) << target;
  }
  for (const char* target : {"name:50051", "dns:///name:50051"}) {
    const auto servers = ParseServers(target).value();
    ASSERT_EQ(servers.size(), 1u) << target;
    EXPECT_EQ(servers[0].ToString(), "name:50051");
  }
  EXPECT_EQ(ParseServers("a:1,[::1]:2")->at(1).ToString(), "[::1]:2");
}

TEST(ServerNamesTest, TargetsOfAddresses) {
  const ServerAddress v4a = {"10.0.0.1:5", false}, v4b = {"10.0.0.2:5", false},
                      v6a = {"[fd00::1]:5", true}, v6b = {"[fd00::2]:5", true};
  const struct {
    std::vector<std::vector<ServerAddress>> servers;
    const char* target;
    bool several;
  } cases[] = {
      {{{v4a}}, "ipv4:10.0.0.1:5", false},
      {{{v6a}}, "ipv6:[fd00::1]:5", false},
      // Two ways to one server, in the order of preference.
      {{{v6a, v4a}}, "ipv6:[fd00::1]:5,[::ffff:10.0.0.1]:5", false},
      {{{v4b, v4a}}, "ipv4:10.0.0.1:5,10.0.0.2:5", true},
      {{{v6b, v4b, v6a, v4a}}, "ipv4:10.0.0.1:5,10.0.0.2:5", true},
      {{{v6b, v6a}}, "ipv6:[fd00::1]:5,[fd00::2]:5", true},
      {{{v4a}, {}}, "ipv4:10.0.0.1:5", true},
      {{{v4a}, {v6b}}, "ipv6:[::ffff:10.0.0.1]:5,[fd00::2]:5", true},
  };
  for (const auto& c : cases) {
    const auto target = MakeStaticTarget(c.servers);
    ASSERT_TRUE(target.has_value()) << c.target;
    EXPECT_EQ(target->target, c.target);
    EXPECT_EQ(target->several, c.several) << c.target;
  }
  EXPECT_FALSE(MakeStaticTarget({{}, {}}).has_value());
}

TEST(ServerNamesTest, TheEnvironmentsProxyLooksNamesUp) {
  for (const char* name : {"grpc_proxy", "https_proxy", "no_grpc_proxy"}) unsetenv(name);
  unsetenv("http_proxy");
  EXPECT_FALSE(UsesHttpProxy("a.example"));
  setenv("http_proxy", "http://proxy:3128", 1);
  setenv("no_proxy", ".svc, .local", 1);
  EXPECT_TRUE(UsesHttpProxy("a.example"));
  EXPECT_FALSE(UsesHttpProxy("servers.q.svc"));
  EXPECT_FALSE(UsesHttpProxy("a.local"));
  unsetenv("http_proxy");
  unsetenv("no_proxy");
}

TEST(ServerNamesTest, TheSystemKnowsLocalhost) {
  const auto addresses = LookUpServer({"localhost", "50051"});
  EXPECT_THAT(addresses, ::testing::Contains(ServerAddress{"127.0.0.1:50051", false}));
  EXPECT_THAT(LookUpServer({"no-such-host.invalid", "1"}), IsEmpty());
}

}  // namespace
}  // namespace uniquanf
