// Certificates that are replaced under programs that run.
#include "common/rpc/tls_files.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/status.h"
#include "common/rpc/channel_source.h"
#include "common/rpc/server_tls.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tls_certificates.h"
#include "uniquanf/v1/admin_service.grpc.pb.h"

namespace uniquanf {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr absl::Duration kSoon = absl::Milliseconds(10);

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
void Write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

class TlsFilesTest : public ::testing::Test {
 protected:
  TlsFilesTest() : ours_(dir_.path(), "ours"), theirs_(dir_.path(), "theirs") {
    names_ = {dir_.File("ca.pem"), dir_.File("tls.crt"), dir_.File("tls.key")};
    Write(names_.ca, Read(ours_.certificate_file()));
    Put(ours_.Issue("a"));
    options_.period = options_.second_look = kSoon;
    options_.note = [this](NoteLevel level, const std::string& text) {
      absl::MutexLock lock(&mutex_);
      if (level == NoteLevel::kWarning) warnings_.push_back(text);
    };
  }

  void Put(const TlsFiles& files) {
    Write(names_.certificate, Read(files.certificate));
    Write(names_.key, Read(files.key));
  }
  std::unique_ptr<TlsWatch> Start() {
    auto watch = TlsWatch::Start(names_, options_);
    EXPECT_OK(watch);
    return *std::move(watch);
  }
  static bool WaitForCertificate(const TlsWatch& watch, const std::string& file) {
    const std::string wanted = Read(file);
    const absl::Time end = absl::Now() + kPatience;
    while (watch.contents()->certificate != wanted && absl::Now() < end) absl::SleepFor(kSoon);
    return watch.contents()->certificate == wanted;
  }
  // The oldest warning that says so, which is taken; "": there is none.
  std::string WaitForWarning(const std::string& part) {
    std::vector<std::string>::iterator found;
    const auto warned = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      found = std::find_if(warnings_.begin(), warnings_.end(), [&](const std::string& text) {
        return text.find(part) != std::string::npos;
      });
      return found != warnings_.end();
    };
    absl::MutexLock lock(&mutex_);
    if (!mutex_.AwaitWithTimeout(absl::Condition(&warned), kPatience)) return "";
    const std::string text = *found;
    warnings_.erase(found);
    return text;
  }

  TempDir dir_;
  TlsAuthority ours_, theirs_;
  TlsFileNames names_;
  TlsWatchOptions options_;
  absl::Mutex mutex_;
  std::vector<std::string> warnings_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(TlsFilesTest, FilesThatAreWrittenOverAreTaken) {
  const auto watch = Start();
  const std::string before = watch->contents()->serial;
  EXPECT_THAT(before, SizeIs(16));
  const TlsFiles next = ours_.Issue("b");
  Put(next);
  EXPECT_TRUE(WaitForCertificate(*watch, next.certificate));
  EXPECT_NE(watch->contents()->serial, before);
  EXPECT_GT(watch->contents()->not_after, absl::Now() + absl::Hours(22));
}

TEST_F(TlsFilesTest, FilesThatAreRenamedAreTaken) {
  const auto watch = Start();
  const TlsFiles next = ours_.Issue("b");
  fs::copy(next.certificate, dir_.File("copy.crt"));
  fs::rename(next.key, names_.key);
  fs::rename(dir_.File("copy.crt"), names_.certificate);
  EXPECT_TRUE(WaitForCertificate(*watch, next.certificate));
}

// As the kubelet does with a Secret: the files are links through a link that is swapped.
TEST_F(TlsFilesTest, ADirectoryThatIsSwappedIsTaken) {
  const TlsFiles first = ours_.Issue("a"), next = ours_.Issue("b");
  const auto fill = [&](const std::string& directory, const TlsFiles& files) {
    fs::create_directory(dir_.File(directory));
    fs::copy(files.certificate, dir_.File(directory + "/tls.crt"));
    fs::copy(files.key, dir_.File(directory + "/tls.key"));
  };
  fs::create_directory(dir_.File("secret"));
  fill("secret/..1", first);
  fs::create_directory_symlink("..1", dir_.File("secret/..data"));
  for (const char* file : {"tls.crt", "tls.key"}) {
    fs::create_symlink(fs::path("..data") / file, dir_.File(std::string("secret/") + file));
  }
  names_.certificate = dir_.File("secret/tls.crt");
  names_.key = dir_.File("secret/tls.key");
  const auto watch = Start();
  fill("secret/..2", next);
  fs::create_directory_symlink("..2", dir_.File("secret/..tmp"));
  fs::rename(dir_.File("secret/..tmp"), dir_.File("secret/..data"));
  fs::remove_all(dir_.File("secret/..1"));
  EXPECT_TRUE(WaitForCertificate(*watch, next.certificate));
}

TEST_F(TlsFilesTest, WhatDoesNotFitTogetherIsNotTakenAndNamed) {
  const auto watch = Start();
  const std::string certificate = Read(names_.certificate), key = Read(names_.key);
  const std::string ca = Read(names_.ca);
  const TlsFiles next = ours_.Issue("b");
  const struct {
    std::string file, text, named;
  } cases[] = {
      {names_.key, Read(next.key), "does not belong"},
      {names_.certificate, "rubbish", "not PEM"},
      {names_.key, key.substr(0, 60), "no private key"},
      {names_.ca, ca.substr(0, 200), "no certificate"},
      {names_.ca, ca + ca.substr(0, 200), "damaged or cut off"},
  };
  for (const auto& c : cases) {
    const std::string good = Read(c.file);
    Write(c.file, c.text);
    EXPECT_THAT(WaitForWarning(c.named), AllOf(HasSubstr(c.file), HasSubstr("stays in use")));
    EXPECT_EQ(watch->contents()->certificate, certificate);
    EXPECT_EQ(watch->contents()->ca, ca);
    Write(c.file, good);
  }
  fs::remove(names_.key);
  EXPECT_THAT(WaitForWarning("cannot read"), HasSubstr(names_.key));
  Put(ours_.IssueExpired("c"));
  EXPECT_THAT(WaitForWarning("has expired"), HasSubstr(names_.certificate));
  EXPECT_EQ(watch->contents()->certificate, certificate);
  // Nothing of this is in the way of a pair that is one.
  Put(next);
  EXPECT_TRUE(WaitForCertificate(*watch, next.certificate));
}

TEST_F(TlsFilesTest, ACertificateThatIsAboutToExpireIsWarnedOf) {
  const auto watch = Start();  // issued for a day
  EXPECT_THAT(WaitForWarning("expires"), HasSubstr(names_.certificate));
}

TEST_F(TlsFilesTest, TheStartNamesAPairThatIsNone) {
  Write(names_.key, Read(theirs_.Issue("b").key));
  const absl::Status status = TlsWatch::Start(names_, options_).status();
  EXPECT_EQ(ErrorReason(status), "INVALID_TLS_OPTIONS");
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(names_.key), HasSubstr(names_.certificate)));
}

// A server whose callers prove themselves; it notes with what.
class TlsServer final : public v1::AdminService::Service {
 public:
  TlsServer(const TlsFileNames& names, const TlsWatchOptions& watch)
      : tls_(*ServerTls::Open({names.certificate, names.key, names.ca}, watch)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", tls_->credentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~TlsServer() override { server_->Shutdown(absl::ToChronoTime(absl::Now())); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  grpc::Status GetServerInfo(grpc::ServerContext* context, const v1::GetServerInfoRequest*,
                             v1::ServerInfo* info) override {
    for (const auto& pem : context->auth_context()->FindPropertyValues("x509_pem_cert")) {
      info->set_version(std::string(pem.data(), pem.size()));
    }
    return grpc::Status::OK;
  }

  const std::unique_ptr<ServerTls> tls_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// The certificates of a call's two sides; empty when there was no call.
struct Sides {
  std::string server, client;
};
Sides Ask(const std::shared_ptr<grpc::Channel>& channel) {
  v1::AdminService::Stub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::ServerInfo info;
  if (!stub.GetServerInfo(&context, {}, &info).ok()) return {};
  Sides sides;
  sides.client = info.version();
  for (const auto& pem : context.auth_context()->FindPropertyValues("x509_pem_cert")) {
    sides.server = std::string(pem.data(), pem.size());
  }
  return sides;
}

TEST_F(TlsFilesTest, NewConnectionsToAServerSeeItsNewCertificate) {
  TlsServer server(names_, options_);
  const TlsFiles own = ours_.Issue("client");
  ChannelOptions client;
  client.tls = {false, ours_.certificate_file(), own.certificate, own.key, ""};
  // Each call a connection of its own.
  const auto ask = [&] { return Ask(*MakeChannel(server.address(), client)); };
  const auto lasting = *MakeChannel(server.address(), client);
  const std::string first = Read(names_.certificate);
  EXPECT_EQ(Ask(lasting).server, first);
  EXPECT_EQ(Ask(lasting).client, Read(own.certificate));
  const TlsFiles next = ours_.Issue("b");
  Put(next);
  const std::string wanted = Read(next.certificate);
  const absl::Time end = absl::Now() + kPatience;
  while (ask().server != wanted && absl::Now() < end) absl::SleepFor(kSoon);
  EXPECT_EQ(ask().server, wanted);
  EXPECT_EQ(Ask(lasting).server, first) << "a connection that is there goes on";
  // A pair that is none keeps nobody out.
  Write(names_.key, Read(ours_.Issue("c").key));
  EXPECT_THAT(WaitForWarning("does not belong"), HasSubstr(names_.key));
  EXPECT_EQ(ask().server, wanted);
}

TEST_F(TlsFilesTest, AServerTakesClientsOfANewAuthority) {
  TlsServer server(names_, options_);
  const TlsFiles stranger = theirs_.Issue("client");
  ChannelOptions client;
  client.tls = {false, ours_.certificate_file(), stranger.certificate, stranger.key, ""};
  EXPECT_EQ(Ask(*MakeChannel(server.address(), client)).server, "");
  Write(names_.ca, Read(ours_.certificate_file()) + Read(theirs_.certificate_file()));
  const absl::Time end = absl::Now() + kPatience;
  Sides sides;
  while (sides.client.empty() && absl::Now() < end) {
    sides = Ask(*MakeChannel(server.address(), client));
  }
  EXPECT_EQ(sides.client, Read(stranger.certificate));
}

// Client and worker alike: they take their channels from a ChannelSource.
TEST_F(TlsFilesTest, ACallersNextConnectionShowsItsNewCertificate) {
  const TlsFiles servers = ours_.Issue("server");
  TlsServer server({ours_.certificate_file(), servers.certificate, servers.key}, options_);
  ChannelSourceOptions options;
  options.channel.tls = {false, names_.ca, names_.certificate, names_.key, ""};
  options.tls_period = kSoon;
  const auto source = *ChannelSource::Make(server.address(), options);
  EXPECT_EQ(Ask(source->Get(kPatience)).client, Read(names_.certificate));
  const TlsFiles next = ours_.Issue("b");
  Put(next);
  const std::string wanted = Read(next.certificate);
  const absl::Time end = absl::Now() + kPatience;
  while (Ask(source->Get(kPatience)).client != wanted && absl::Now() < end) absl::SleepFor(kSoon);
  EXPECT_EQ(Ask(source->Get(kPatience)).client, wanted);
}

TEST_F(TlsFilesTest, ACallerTrustsANewAuthority) {
  const TlsFiles servers = theirs_.Issue("server");
  TlsServer server({ours_.certificate_file(), servers.certificate, servers.key}, options_);
  ChannelSourceOptions options;
  options.channel.tls = {false, names_.ca, names_.certificate, names_.key, ""};
  const auto source = *ChannelSource::Make(server.address(), options);  // looks every 10 s
  EXPECT_EQ(Ask(source->Get(kPatience)).server, "");
  Write(names_.ca, Read(theirs_.certificate_file()));
  const absl::Time end = absl::Now() + kPatience;
  Sides sides;
  while (sides.server.empty() && absl::Now() < end) {
    source->Refresh();  // as after each call that fails
    absl::SleepFor(kSoon);
    sides = Ask(source->Get(kPatience));
  }
  EXPECT_EQ(sides.server, Read(servers.certificate));
}

}  // namespace
}  // namespace uniquanf
