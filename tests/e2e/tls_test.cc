// Mutual TLS between real processes: server, worker and command line prove themselves with
// certificates of an authority made for the test, and whoever cannot is kept out.
#include <signal.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "tests/e2e/service_test.h"
#include "tests/support/status_matchers.h"
#include "tests/support/tls_certificates.h"

namespace uniquanf {
namespace {

using testing::HasSubstr;
using Flags = std::vector<std::string>;

constexpr int kExitUsage = 2, kExitUnreachable = 4;

Flags TlsFlags(const std::string& ca_file, const TlsFiles& files) {
  return {"--tls-ca=" + ca_file, "--tls-cert=" + files.certificate, "--tls-key=" + files.key};
}

class TlsTest : public ServiceTest {
 protected:
  TlsTest() : ours_(dir_.path(), "ours"), theirs_(dir_.path(), "theirs") {
    ClientOptions client;
    client.tls_ca_file = ours_.certificate_file();
    const TlsFiles files = ours_.Issue("test");
    client.tls_certificate_file = files.certificate;
    client.tls_key_file = files.key;
    cluster_.set_client_options(client);
  }

  bool StartServer() {
    return cluster_.StartServer(
        {.flags = TlsFlags(ours_.certificate_file(), ours_.Issue("server"))});
  }

  CommandResult List(Flags flags) {
    flags.insert(flags.begin(), {"list", "--timeout=2s"});
    return cluster_.Run("uniquanf", flags);
  }

  TempDir dir_;
  TlsAuthority ours_, theirs_;
};

TEST_F(TlsTest, AJobRunsBetweenProgramsThatProveThemselves) {
  ASSERT_TRUE(StartServer());
  cluster_.StartWorker("w1", {.flags = TlsFlags(ours_.certificate_file(), ours_.Issue("worker"))});
  const QuantizationSpec spec = Spec("out");
  const std::string job = Submit(spec);
  ExpectReferenceArtifact(job, spec);
  const CommandResult listed =
      List(TlsFlags(ours_.certificate_file(), ours_.Issue("command-line")));
  EXPECT_EQ(listed.status, (ExitStatus{0, 0})) << listed.output;
  EXPECT_THAT(listed.output, HasSubstr(job.substr(std::string("jobs/").size())));
}

TEST_F(TlsTest, CommandLinesThatCannotProveThemselvesAreKeptOut) {
  ASSERT_TRUE(StartServer());
  const std::string ca = ours_.certificate_file();
  const std::pair<const char*, Flags> cases[] = {
      {"no TLS", {}},
      {"no certificate", {"--tls-ca=" + ca}},
      {"another authority's certificate", TlsFlags(ca, theirs_.Issue("stranger"))},
      {"an expired certificate", TlsFlags(ca, ours_.IssueExpired("old"))},
  };
  for (const auto& [name, flags] : cases) {
    const CommandResult result = List(flags);
    EXPECT_EQ(result.status, (ExitStatus{kExitUnreachable, 0})) << name << ": " << result.output;
  }
}

TEST_F(TlsTest, AServerOfAnotherAuthorityIsNotTrusted) {
  ASSERT_TRUE(StartServer());
  const CommandResult result =
      List(TlsFlags(theirs_.certificate_file(), ours_.Issue("command-line")));
  EXPECT_EQ(result.status, (ExitStatus{kExitUnreachable, 0})) << result.output;
}

TEST_F(TlsTest, AWorkerOfAnotherAuthorityIsNotAccepted) {
  ASSERT_TRUE(StartServer());
  const std::string ca = ours_.certificate_file();
  cluster_.StartWorker("stranger", {.flags = TlsFlags(ca, theirs_.Issue("stranger"))});
  cluster_.StartWorker("w1", {.flags = TlsFlags(ca, ours_.Issue("worker"))});
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  EXPECT_TRUE(WaitUntil(
      [&] {
        return cluster_.worker("stranger")->Log().find("does not answer") != std::string::npos;
      },
      absl::Seconds(10)));
  const auto workers = cluster_.client().ListWorkers();
  ASSERT_OK(workers);
  ASSERT_EQ(workers->size(), 1u);
  EXPECT_EQ((*workers)[0].name, "workers/w1");
}

// From one authority to the next in two steps, as it is done: all trust both, then only the new
// one. No process is restarted but the server, and that only to see what the others show it.
TEST_F(TlsTest, ANewAuthorityAndItsCertificatesAreTakenWithoutARestart) {
  const TlsFiles server = {dir_.File("server.crt"), dir_.File("server.key")};
  const TlsFiles caller = {dir_.File("caller.crt"), dir_.File("caller.key")};
  const std::string ca = dir_.File("ca.crt");
  // Renamed into place.
  const auto put = [&](const std::string& text, const std::string& path) {
    WriteFile(path + ".new", text);
    std::filesystem::rename(path + ".new", path);
  };
  const auto put_pair = [&](const TlsFiles& from, const TlsFiles& to) {
    put(ReadFile(from.key), to.key);
    put(ReadFile(from.certificate), to.certificate);
  };
  const std::string old_ca = ReadFile(ours_.certificate_file());
  const std::string new_ca = ReadFile(theirs_.certificate_file());
  put(old_ca, ca);
  put_pair(ours_.Issue("server"), server);
  put_pair(ours_.Issue("caller"), caller);
  ClientOptions client;
  client.tls_ca_file = ca;
  client.tls_certificate_file = caller.certificate;
  client.tls_key_file = caller.key;
  cluster_.set_client_options(client);
  const ProgramOptions program = {.flags = TlsFlags(ca, server)};
  ASSERT_TRUE(cluster_.StartServer(program));
  cluster_.StartWorker("w1", {.flags = TlsFlags(ca, caller)});
  ASSERT_TRUE(cluster_.WaitUntilReady("w1"));
  ASSERT_OK(cluster_.client().ListWorkers());
  const auto reload = [&] {
    cluster_.server()->Signal(SIGHUP);
    cluster_.worker("w1")->Signal(SIGHUP);
  };
  // Whether a new connection comes about of one who trusts and shows only this.
  const auto connects = [&](const TlsAuthority& trusted, const TlsAuthority& shown) {
    return List(TlsFlags(trusted.certificate_file(), shown.Issue("probe"))).status ==
           ExitStatus{0, 0};
  };
  EXPECT_TRUE(connects(ours_, ours_));

  put(old_ca + new_ca, ca);
  put_pair(theirs_.Issue("server"), server);
  reload();
  EXPECT_TRUE(WaitUntil([&] { return connects(theirs_, ours_); }, absl::Minutes(1)));
  EXPECT_TRUE(connects(theirs_, theirs_));

  put_pair(theirs_.Issue("caller"), caller);
  put(new_ca, ca);
  reload();
  EXPECT_TRUE(WaitUntil([&] { return !connects(theirs_, ours_); }, absl::Minutes(1)));
  cluster_.KillServer();
  ASSERT_TRUE(cluster_.StartServer(program));
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto workers = cluster_.client().ListWorkers();
        return workers.ok() && workers->size() == 1;
      },
      absl::Minutes(1)));
}

TEST_F(TlsTest, ABrokenCertificateIsWarnedOfAndTheOldOneStays) {
  const TlsFiles files = ours_.Issue("server");
  ASSERT_TRUE(StartServer());
  WriteFile(files.certificate, "rubbish");
  cluster_.server()->Signal(SIGHUP);
  EXPECT_TRUE(WaitUntil(
      [&] {
        const std::string log = cluster_.server()->Log();
        return log.find(files.certificate) != std::string::npos &&
               log.find("stays in use") != std::string::npos;
      },
      absl::Minutes(1)));
  EXPECT_EQ(List(TlsFlags(ours_.certificate_file(), ours_.Issue("caller"))).status,
            (ExitStatus{0, 0}));
}

TEST_F(TlsTest, ACertificateWithoutItsKeyIsWrongUsage) {
  const std::string flag = "--tls-cert=" + ours_.Issue("half").certificate;
  const std::pair<const char*, Flags> cases[] = {
      {"uniquanf-server", {flag, "--data-dir=" + dir_.File("data")}},
      {"uniquanf-worker", {flag, "--device=cpu"}},
  };
  for (const auto& [program, flags] : cases) {
    const CommandResult result = cluster_.Run(program, flags);
    EXPECT_EQ(result.status, (ExitStatus{kExitUsage, 0})) << program << ": " << result.output;
    EXPECT_THAT(result.output, HasSubstr("the key file is missing")) << program;
  }
}

}  // namespace
}  // namespace uniquanf
