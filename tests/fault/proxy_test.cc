// The proxies that the fault tests trust: they pass everything unchanged when they are told to do
// no harm, and do the harm they are told to.
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/support/child_process.h"
#include "tests/support/failing_http_proxy.h"
#include "tests/support/socket_util.h"
#include "tests/support/tcp_proxy.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

// Serves one connection at a time by `handle`, until it is destroyed.
class SmallServer {
 public:
  explicit SmallServer(std::function<void(int)> handle) : listener_(ListenOnLoopback(&address_)) {
    thread_ = std::thread([this, handle] {
      for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0; close(fd)) handle(fd);
    });
  }
  ~SmallServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  const std::string& address() const { return address_; }

 private:
  std::string address_;
  const int listener_;
  std::thread thread_;
};

void Echo(int fd) {
  char buffer[4096];
  for (ssize_t count; (count = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    send(fd, buffer, static_cast<size_t>(count), MSG_NOSIGNAL);
  }
}

// All that comes until the connection ends.
std::string ReadAll(int fd) {
  std::string all;
  char buffer[4096];
  for (ssize_t count; (count = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
    all.append(buffer, static_cast<size_t>(count));
  }
  return all;
}

std::string Pattern(size_t size) {
  std::string bytes(size, 0);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 7 + i / 251);
  return bytes;
}

TEST(TcpProxyTest, PassesBytesUnchangedAndInOrderWhenItOnlyDelays) {
  SmallServer server(Echo);
  TcpFaults faults;
  faults.max_delay = absl::Milliseconds(5);
  TcpProxy proxy(server.address(), 1, faults);
  const int fd = ConnectTo(proxy.address());
  const std::string sent = Pattern(100000);
  std::thread writer([&] {
    size_t at = 0;
    while (at < sent.size()) at += send(fd, sent.data() + at, sent.size() - at, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
  });
  EXPECT_TRUE(ReadAll(fd) == sent);
  writer.join();
  close(fd);
  EXPECT_EQ(proxy.num_broken(), 0);
}

class BreakingTcpProxyTest : public testing::TestWithParam<TcpFaults> {};

TEST_P(BreakingTcpProxyTest, EndsTheConnection) {
  SmallServer server(Echo);
  TcpProxy proxy(server.address(), 1, GetParam());
  const int fd = ConnectTo(proxy.address());
  const std::string sent = Pattern(1000);
  std::string received;
  char buffer[4096];
  // Answers come until the fault; then the connection ends instead of hanging.
  while (send(fd, sent.data(), sent.size(), MSG_NOSIGNAL) > 0) {
    const ssize_t count = recv(fd, buffer, sizeof(buffer), 0);
    if (count <= 0) break;
  }
  close(fd);
  EXPECT_TRUE(WaitUntil([&] { return proxy.num_broken() == 1; }, kPatience));
}

INSTANTIATE_TEST_SUITE_P(Faults, BreakingTcpProxyTest,
                         testing::Values(TcpFaults{.cut = 1, .max_life = absl::Milliseconds(50)},
                                         TcpFaults{.truncate = 1,
                                                   .max_life = absl::Milliseconds(50)},
                                         TcpFaults{.silence = 1,
                                                   .max_life = absl::Milliseconds(50),
                                                   .max_silence = absl::Milliseconds(50)}));

TEST(TcpProxyTest, CutAllResetsEveryConnection) {
  SmallServer server(Echo);
  TcpProxy proxy(server.address(), 1, {});
  const int fd = ConnectTo(proxy.address());
  ASSERT_TRUE(WaitUntil([&] { return proxy.num_connections() == 1; }, kPatience));
  proxy.CutAll();
  EXPECT_EQ(ReadAll(fd), "");
  close(fd);
  EXPECT_EQ(proxy.num_broken(), 1);
}

// Answers every request on a connection with a body of 1000 bytes.
void ServeHttp(int fd) {
  std::string buffer;
  char bytes[4096];
  for (ssize_t count; (count = recv(fd, bytes, sizeof(bytes), 0)) > 0;) {
    buffer.append(bytes, static_cast<size_t>(count));
    for (size_t end; (end = buffer.find("\r\n\r\n")) != std::string::npos;) {
      buffer.erase(0, end + 4);
      const std::string reply =
          absl::StrCat("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", std::string(1000, 'b'));
      send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
    }
  }
}

std::string Fetch(const std::string& address, const std::string& method) {
  const int fd = ConnectTo(address);
  const std::string request =
      absl::StrCat(method, " /bucket/key?x=1 HTTP/1.1\r\nHost: ", address, "\r\n\r\n");
  send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
  std::string reply = ReadAll(fd);
  close(fd);
  return reply;
}

TEST(FailingHttpProxyTest, PassesRequestsAndCountsPutsWhenNothingFails) {
  SmallServer server(ServeHttp);
  FailingHttpProxy proxy(server.address(), 1, 0);
  EXPECT_THAT(Fetch(proxy.address(), "GET"), testing::EndsWith(std::string(1000, 'b')));
  EXPECT_EQ(proxy.NumPuts("/key"), 0);
  EXPECT_THAT(Fetch(proxy.address(), "PUT"), testing::StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(proxy.NumPuts("/key"), 1);
  EXPECT_EQ(proxy.counts().failed(), 0);
}

TEST(FailingHttpProxyTest, CountsPutsThatAServerTookAndNeverAnswered) {
  SmallServer server([](int fd) {
    char bytes[4096];
    (void)recv(fd, bytes, sizeof(bytes), 0);
  });
  FailingHttpProxy proxy(server.address(), 1, 0);
  EXPECT_EQ(Fetch(proxy.address(), "PUT"), "");
  EXPECT_EQ(proxy.NumPuts("/key"), 0);
  EXPECT_EQ(proxy.NumUnknownPuts("/key"), 1);
}

TEST(FailingHttpProxyTest, FailsInEveryWayAndNeverPassesAWholeAnswer) {
  SmallServer server(ServeHttp);
  FailingHttpProxy proxy(server.address(), 1, 1);
  for (int i = 0; i < 40; ++i) {
    EXPECT_THAT(Fetch(proxy.address(), "PUT"),
                testing::Not(testing::HasSubstr(std::string(1000, 'b'))));
  }
  const FailingHttpProxy::Counts counts = proxy.counts();
  EXPECT_EQ(counts.failed(), 40);
  EXPECT_GT(counts.refused, 0);
  EXPECT_GT(counts.reset, 0);
  EXPECT_GT(counts.unanswered, 0);
  EXPECT_GT(counts.truncated, 0);
  EXPECT_EQ(proxy.NumPuts("/key"), counts.unanswered + counts.truncated) << "done, but not told";
}

}  // namespace
}  // namespace uniquanf
