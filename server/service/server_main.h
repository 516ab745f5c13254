// The program uniquanf-server: reads flags, runs a ServerProcess until SIGTERM or SIGINT (a second
// one ends it at once). Exit codes: 0 stopped as asked, 1 failed, 2 bad flags.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_MAIN_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_MAIN_H_

namespace uniquanf::server {

int ServerMain(int argc, char** argv);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_MAIN_H_
